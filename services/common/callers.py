"""Whose number a caller shows."""

import re
from typing import Final

_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
# What Twilio gives for callers without a number: "anonymous", "blocked", "private", "restricted",
# "unavailable" and "unknown", as a telephone's keys spell them.
_NO_PHONE: Final = frozenset(
    ("+266696687", "+2562533", "+7748283", "+7378742833", "+86282452253", "+8656696")
)


def has_number(caller: str) -> bool:
    """Whether that is somebody's number: not withheld, and no address of SIP or of a program."""
    return caller not in _NO_PHONE and _PHONE.fullmatch(caller) is not None
