"""Cutting an answer into sentences while it is still being written."""

import re
from typing import Final

_STOPS: Final = ".!?…׃؟"  # noqa: RUF001 - Hebrew and Arabic have stops of their own.
_FULL_WIDTH_STOPS: Final = "。！？"  # noqa: RUF001 - Chinese and Japanese put no space after them.
_CLOSERS: Final = "\"'”’)]»›״"  # noqa: RUF001 - As they are written.
_OPENERS: Final = "\"'“‘([«‹„"  # noqa: RUF001 - As they are written.
# Marks of writing direction: nobody hears them, and they stand between stop and space.
_UNHEARD: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CLAUSE: Final = re.compile(r"[,;:–—،]\s")  # noqa: RUF001 - As they are written.

# Never the last word of a sentence.
_TITLES: Final = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "rev", "gen", "sen", "st", "vs", "e.g", "i.e", "cf", "approx")
)
# Belong to the number that follows them, and are words of their own where none does.
_BEFORE_NUMBERS: Final = frozenset(
    ("no", "nos", "nr", "tel", "ext", "fig", "p", "pp", "vol", "art", "sec")
)
# May end a sentence, as may what has a dot inside: "p.m.", "U.S.", "example.com."
_MAYBE: Final = frozenset(
    (
        *("etc", "inc", "ltd", "co", "corp", "jr", "sr", "dept", "est", "ave", "rd", "blvd"),
        *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
        *("mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun"),
    )
)

_EARLIEST_CLAUSE: Final = 20
_LOOK_AHEAD: Final = 40


class SentenceCutter:
    """Takes text in pieces of any size and gives whole sentences, in order and without loss.

    The sentences are the same however the text was cut. Their white space is simplified, marks of
    writing direction are left out, and what has no letter or digit is never a sentence of its own.

    Args:
        first_clause: A first sentence that gets longer is cut after a clause, so that there is
            something to say early; in characters.
        first_longest: Where there is no clause, it is cut after a word.
        longest: No other sentence gets longer. The speech vendors take 5000 bytes at most.
    """

    def __init__(
        self, *, first_clause: int = 80, first_longest: int = 160, longest: int = 400
    ) -> None:
        self._first_clause = first_clause
        self._first_longest = first_longest
        self._longest = longest
        self._text = ""
        self._at = 0
        self._is_first = True

    def feed(self, text: str) -> list[str]:
        """Add text; the sentences that it completes."""
        self._text += _UNHEARD.sub("", text)
        return self._cut(final=False)

    def flush(self) -> list[str]:
        """The rest, when no more text comes."""
        pieces = self._cut(final=True)
        rest = " ".join(self._text.split())
        self._text, self._at = "", 0
        return [*pieces, rest] if _has_words(rest) else pieces

    def _cut(self, *, final: bool) -> list[str]:
        pieces = []
        while (end := self._end(final=final)) is not None:
            piece = " ".join(self._text[:end].split())
            self._text, self._at = self._text[end:], 0
            if _has_words(piece):
                pieces.append(piece)
                self._is_first = False
        return pieces

    def _end(self, *, final: bool) -> int | None:
        """Where the next sentence ends; None when that isn't known yet."""
        text = self._text
        while self._at < len(text):
            here = self._at
            end: int | None = None
            if text[here] == "\n" or text[here] in _FULL_WIDTH_STOPS:
                end = here + 1
            elif text[here] in _STOPS:
                after = _after_marks(text[: here + _LOOK_AHEAD], here)
                far = after == here + _LOOK_AHEAD
                # What follows decides, and may not have been written yet.
                if not final and not far and after == len(text):
                    return None
                if far or _ends_sentence(text, here, after):
                    end = after
            if end is None or not _has_words(text[:end]):
                end = self._too_long(here + 1)
            if end is not None:
                return end
            self._at += 1
        return None

    def _too_long(self, length: int) -> int | None:
        """Where to cut what has got that long; None when it may get longer."""
        text = self._text[:length]
        if self._is_first and (
            length == self._first_clause
            or (length > self._first_clause and _CLAUSE.fullmatch(text[-2:]))
        ):
            clauses = [match.end() for match in _CLAUSE.finditer(text, _EARLIEST_CLAUSE)]
            if clauses and _has_words(text[: clauses[-1]]):
                return clauses[-1]
        longest = self._first_longest if self._is_first else self._longest
        if length < longest:
            return None
        ends = [match.end() for match in _CLAUSE.finditer(text, longest // 2)]
        ends = ends or [match.end() for match in re.finditer(r"\s", text)]
        return next((end for end in reversed(ends) if _has_words(text[:end])), length)


def _after_marks(text: str, start: int) -> int:
    """The place after a run of stops, what closes quotes and brackets, and white space."""
    here = start
    while here < len(text) and text[here] in _STOPS:
        here += 1
    while here < len(text) and text[here] in _CLOSERS:
        here += 1
    while here < len(text) and text[here].isspace():
        here += 1
    return here


def _ends_sentence(text: str, start: int, after: int) -> bool:
    """Whether a sentence ends with the stops at `start`; `after` is what `_after_marks` says."""
    if after == len(text):
        return True
    if not text[after - 1].isspace():
        # 3.5, 10.30, example.com
        return False
    marks = text[start:after]
    if "\n" in marks or not marks.startswith((".", "…")):
        return True
    following = text[after]
    if marks.startswith(("..", "…")):
        return not following.islower()
    before, _, word = text[:start].rpartition(" ")
    word = word.lstrip(_OPENERS)
    if word.isdigit() and not before.strip():
        # The number of an item in a list.
        return False
    lower = word.lower()
    if lower in _TITLES or (len(word) == 1 and word.isalpha()):
        return False
    if lower in _BEFORE_NUMBERS:
        return not following.isdigit()
    if lower in _MAYBE or "." in word:
        return not following.islower()
    return True


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)
