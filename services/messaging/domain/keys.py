"""Keys that a caller pressed while a recording ran."""

from typing import Final

HANGUP: Final = "hangup"
"""Twilio's word for a caller who hung up during a recording."""

TRANSFER_KEY: Final = "0"


def is_key_press(digits: str) -> bool:
    """Whether keys were pressed instead of speaking.

    "#" is how many people end what they say.
    """
    return digits not in ("", "#", HANGUP)
