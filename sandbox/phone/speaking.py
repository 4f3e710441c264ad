"""How long a text takes to speak, and which language it is in."""

import re

_CHARACTERS_PER_SECOND = 14.0
_HEBREW = re.compile(r"[\u0590-\u05ff]")
_LETTER = re.compile(r"[^\W\d_]")


def spoken_seconds(text: str) -> float:
    """About as long as a person takes; never less than half a second."""
    return max(0.5, len(text) / _CHARACTERS_PER_SECOND)


def languages_of(text: str) -> list[str]:
    """ISO 639-1 codes of what is spoken: Hebrew, English, or nothing certain."""
    if _HEBREW.search(text):
        return ["he"]
    return ["en"] if _LETTER.search(text) else []
