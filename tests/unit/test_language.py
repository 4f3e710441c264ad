"""Languages on the telephone."""

import re

import pytest

from services.messaging.domain.language import (
    LANGUAGES,
    PHRASES,
    Phrase,
    phrase_language,
    understood_language,
    written_language,
)


@pytest.mark.parametrize(
    ("named", "expected", "language"),
    [
        ("he", ("en-US", "he-IL"), "he-IL"),
        ("iw", ("en-US",), "he-IL"),
        ("hebrew", ("en-US",), "he-IL"),
        ("HE_il", ("en-US",), "he-IL"),
        ("en", ("he-IL", "en-GB"), "en-GB"),
        ("en-GB", ("he-IL", "en-US"), "en-GB"),
        ("English", ("he-IL",), "en-US"),
        ("ru", ("he-IL", "en-US"), "ru-RU"),
        (None, ("he-IL", "en-US"), "he-IL"),
        ("", ("he-IL",), "he-IL"),
        ("tlh", ("he-IL", "en-US"), "he-IL"),
    ],
)
def test_the_language_that_was_understood(
    named: str | None, expected: tuple[str, ...], language: str
) -> None:
    """Whatever a transcriber calls a language becomes a tag, the expected ones first."""
    assert understood_language(named, expected) == language


@pytest.mark.parametrize(
    ("text", "expected", "language"),
    [
        ("הדירה בחיפה פנויה?", ("en-US", "he-IL"), "he-IL"),
        ("אני מחפש את WhatsApp", ("en-US",), "he-IL"),
        ("Is the flat free?", ("he-IL", "en-US"), "en-US"),
        ("¿Está libre?", ("fr-FR", "en-US"), "fr-FR"),
        ("Квартира свободна?", ("en-US", "he-IL"), "ru-RU"),
        ("10, 20", ("he-IL", "en-US"), "he-IL"),
        ("日本語", ("he-IL", "en-US"), "he-IL"),
    ],
)
def test_a_language_that_nobody_names(text: str, expected: tuple[str, ...], language: str) -> None:
    """Where a transcriber names no language, the letters tell what they can."""
    assert written_language(text, expected) == language


def test_what_vendors_call_hebrew() -> None:
    """Each vendor has a code of its own for it."""
    hebrew = LANGUAGES["he-IL"]
    assert (hebrew.iso, hebrew.google_speech, hebrew.google_recognition) == ("he", "he-IL", "iw-IL")
    assert hebrew.say_voice == "Google.he-IL-Wavenet-A"


def test_every_phrase_is_there_in_every_language_of_ours() -> None:
    """Nobody hears half of a call in another language: Hebrew is Hebrew, English is English."""
    for tag, letters in (("en-US", "[A-Za-z]"), ("he-IL", "[\u05d0-\u05ea]")):
        assert PHRASES[tag].keys() == set(Phrase)
        for text in PHRASES[tag].values():
            assert re.search(letters, text)
            assert not re.search("[A-Za-z]" if tag == "he-IL" else "[\u05d0-\u05ea]", text)


def test_other_languages_hear_english_phrases() -> None:
    """A language without phrases of its own, or another English, hears those in English."""
    assert phrase_language("he-IL") == "he-IL"
    assert {phrase_language(tag) for tag in ("en-US", "en-GB", "ru-RU", "xx")} == {"en-US"}
