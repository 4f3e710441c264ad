"""Words by which a contact stops and starts automatic messages."""

import unicodedata
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

# No wish is as long, and looking at each character of a long text takes time.
_LONGEST: Final = 100
# Marks of writing direction, joiners and the like; vowel points and accents by themselves.
_UNSEEN: Final = ("Cf", "Mn")
# Punctuation, quotes of all kinds, symbols and blanks.
_AROUND_WORDS: Final = ("P", "S", "Z")


class Wish(Enum):
    """What a whole message asks for."""

    OUT = "out"
    IN = "in"


class OptOutWords:
    """Recognizes a message that is nothing but an opt-out or opt-in word.

    Case, width, vowel points and what can't be seen don't matter, nor do marks around the word:
    phones add some by themselves.
    """

    def __init__(self, extra_out: Iterable[str] = (), extra_in: Iterable[str] = ()) -> None:
        self._wishes = {
            **{_plain(word): Wish.IN for word in (*ENGLISH_IN, *HEBREW_IN, *extra_in)},
            **{_plain(word): Wish.OUT for word in (*ENGLISH_OUT, *HEBREW_OUT, *extra_out)},
        }

    def wish(self, body: str) -> Wish | None:
        """The wish a message expresses; None for any other text."""
        bare = body.strip()
        return self._wishes.get(_plain(bare)) if len(bare) <= _LONGEST else None


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    seen = "".join(one for one in folded if unicodedata.category(one) not in _UNSEEN)
    words = " ".join(seen.split())
    around = "".join(one for one in words if unicodedata.category(one).startswith(_AROUND_WORDS))
    # A configured word may be a symbol alone; nothing at all would stand for any other symbol.
    return words.strip(around) or words
