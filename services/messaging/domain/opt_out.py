"""Words by which a contact stops and starts automatic messages."""

from collections.abc import Iterable
from enum import Enum
from typing import Final

# Twilio, "Support for opt-out keywords". Twilio does not enforce them on WhatsApp.
ENGLISH_OUT: Final = (
    "STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT",
    "OPT OUT",
)  # fmt: skip
ENGLISH_IN: Final = ("START", "UNSTOP", "YES")
HEBREW_OUT: Final = ("הסר", "הסירו", "להסיר", "עצור", "עצרו", "הפסק", "הפסיקו", "בטל")
HEBREW_IN: Final = ("התחל", "כן", "הצטרף")


class Wish(Enum):
    """What a whole message asks for."""

    OUT = "out"
    IN = "in"


class OptOutWords:
    """Recognizes a message that is nothing but an opt-out or opt-in word, in any case."""

    def __init__(self, extra_out: Iterable[str] = (), extra_in: Iterable[str] = ()) -> None:
        self._wishes = {
            **{_plain(word): Wish.IN for word in (*ENGLISH_IN, *HEBREW_IN, *extra_in)},
            **{_plain(word): Wish.OUT for word in (*ENGLISH_OUT, *HEBREW_OUT, *extra_out)},
        }

    def wish(self, body: str) -> Wish | None:
        """The wish a message expresses; None for any other text."""
        return self._wishes.get(_plain(body))


def _plain(text: str) -> str:
    return " ".join(text.strip(" \t\r\n.!?\"'").casefold().split())
