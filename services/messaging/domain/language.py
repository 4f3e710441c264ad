"""Languages on the telephone: what each vendor calls them, and phrases that are always ready."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
    """A language that can be understood and spoken.

    Attributes:
        tag: BCP 47; ours.
        iso: ISO 639-1, as OpenAI wants it.
        google_speech: Google's code for speaking.
        google_recognition: Google's code for recognizing; Twilio's transcription wants it too.
        say_voice: Twilio's name of the voice for `<Say>`; "" where the language alone will do.
        name: In English and lower case, as some transcribers name it.
    """

    tag: str
    iso: str
    google_speech: str
    google_recognition: str
    say_voice: str
    name: str


def _plain(tag: str, name: str) -> Language:
    return Language(tag, tag.partition("-")[0], tag, tag, "", name)


# Twilio's "Text-to-Speech: available voices": Amazon has no Hebrew, Google has. Google's
# recognition uses the code that ISO 639 gave Hebrew before 1989.
_HEBREW: Final = Language("he-IL", "he", "he-IL", "iw-IL", "Google.he-IL-Wavenet-A", "hebrew")
_ARABIC: Final = Language("ar-XA", "ar", "ar-XA", "ar-IL", "Google.ar-XA-Wavenet-A", "arabic")

LANGUAGES: Final = {
    language.tag: language
    for language in (
        _plain("en-US", "english"),
        _HEBREW,
        _plain("en-GB", "english"),
        _ARABIC,
        _plain("ru-RU", "russian"),
        _plain("fr-FR", "french"),
        _plain("es-ES", "spanish"),
        _plain("de-DE", "german"),
        _plain("it-IT", "italian"),
        _plain("pt-BR", "portuguese"),
    )
}
"""By their tag. Those with phrases of their own are in `PHRASES`."""

_OLD_CODES: Final = {"iw": "he"}


def understood_language(named: str | None, expected: Sequence[str]) -> str:
    """The language of something a caller said.

    Args:
        named: What the transcriber calls it: a code such as "he" or "he-IL", or a name such as
            "hebrew"; None when it doesn't say.
        expected: Tags, the likeliest first. One of them is preferred to others of the same
            language, and the first stands for what isn't known.
    """
    word = (named or "").strip().lower().replace("_", "-")
    iso = word.partition("-")[0]
    iso = _OLD_CODES.get(iso, iso)
    tags = (*expected, *LANGUAGES)
    for wanted in (word, iso):
        for tag in tags:
            language = LANGUAGES[tag]
            if wanted in (tag.lower(), language.iso, language.name):
                return tag
    return expected[0]


_LETTERS: Final = {"he": "HEBREW", "ar": "ARABIC", "ru": "CYRILLIC"}
_MOST_LETTERS: Final = "LATIN"


def written_language(text: str, expected: Sequence[str]) -> str:
    """The likeliest of the languages that are written in a text's letters.

    Args:
        expected: Tags, the likeliest first; the first stands for what isn't known.
    """
    scripts = Counter(
        unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha()
    )
    for script, _ in scripts.most_common(1):
        for tag in (*expected, *LANGUAGES):
            if _LETTERS.get(LANGUAGES[tag].iso, _MOST_LETTERS) == script:
                return tag
    return expected[0]


class Phrase(StrEnum):
    """Something that is always said in the same words."""

    GREETING = "greeting"
    CLOSED = "closed"
    LEAVE_MESSAGE = "leave_message"
    MESSAGE_TAKEN = "message_taken"
    NOT_HEARD = "not_heard"
    STILL_NOT_HEARD = "still_not_heard"
    GOODBYE_UNHEARD = "goodbye_unheard"
    GOODBYE = "goodbye"
    OUT_OF_TIME = "out_of_time"
    ONE_MOMENT = "one_moment"
    ANOTHER_MOMENT = "another_moment"
    SORRY = "sorry"
    PLEASE_SPEAK = "please_speak"
    PUTTING_THROUGH = "putting_through"
    NOBODY_THERE = "nobody_there"


PHRASES: Final = {
    "en-US": {
        Phrase.GREETING: "Hello, and thank you for calling. How can I help you?",
        Phrase.CLOSED: "Thank you for calling. We're closed at the moment.",
        Phrase.LEAVE_MESSAGE: "Please leave a message after the tone, and we'll get back to you.",
        Phrase.MESSAGE_TAKEN: "Thank you, we have your message. Goodbye.",
        Phrase.NOT_HEARD: "Sorry, I didn't catch that. Could you say it again?",
        Phrase.STILL_NOT_HEARD: "I still can't hear you. What can I do for you?",
        Phrase.GOODBYE_UNHEARD: "I'm afraid I can't hear you. Please try calling again. Goodbye.",
        Phrase.GOODBYE: "Thank you for calling. Goodbye.",
        Phrase.OUT_OF_TIME: "I'm afraid we're out of time. Thank you for calling, and goodbye.",
        Phrase.ONE_MOMENT: "One moment, please.",
        Phrase.ANOTHER_MOMENT: "Thank you for waiting. Just a moment longer.",
        Phrase.SORRY: "I'm sorry, I can't answer that right now.",
        Phrase.PLEASE_SPEAK: "There's no need to press a key. Just tell me how I can help.",
        Phrase.PUTTING_THROUGH: "One moment, I'm putting you through.",
        Phrase.NOBODY_THERE: "I'm sorry, nobody can take your call right now.",
    },
    "he-IL": {
        Phrase.GREETING: "שלום, תודה שהתקשרתם. איך אפשר לעזור?",
        Phrase.CLOSED: "תודה שהתקשרתם. אנחנו סגורים כרגע.",
        Phrase.LEAVE_MESSAGE: "אפשר להשאיר הודעה אחרי הצליל, ונחזור אליכם.",
        Phrase.MESSAGE_TAKEN: "תודה, קיבלנו את ההודעה. להתראות.",
        Phrase.NOT_HEARD: "סליחה, לא שמעתי. אפשר לחזור על זה?",
        Phrase.STILL_NOT_HEARD: "עדיין לא הצלחתי לשמוע אתכם. במה אפשר לעזור?",
        Phrase.GOODBYE_UNHEARD: "לצערי לא הצלחתי לשמוע אתכם. אפשר לנסות להתקשר שוב. להתראות.",
        Phrase.GOODBYE: "תודה שהתקשרתם. להתראות.",
        Phrase.OUT_OF_TIME: "לצערי נגמר לנו הזמן. תודה שהתקשרתם, ולהתראות.",
        Phrase.ONE_MOMENT: "רק רגע, בבקשה.",
        Phrase.ANOTHER_MOMENT: "תודה על הסבלנות. עוד רגע קט.",
        Phrase.SORRY: "לצערי אין לי תשובה לזה כרגע.",
        Phrase.PLEASE_SPEAK: "אין צורך להקיש. פשוט אמרו לי במה אפשר לעזור.",
        Phrase.PUTTING_THROUGH: "רק רגע, השיחה מועברת.",
        Phrase.NOBODY_THERE: "לצערי אין כרגע מי שיענה לשיחה.",
    },
}
"""By tag. Other languages hear the English ones."""

_FALLBACK: Final = "en-US"


def phrase_language(language: str) -> str:
    """The language in which phrases are said to callers of a language; both are tags."""
    if language in PHRASES:
        return language
    same = (tag for tag in PHRASES if LANGUAGES[tag].iso == language.partition("-")[0])
    return next(same, _FALLBACK)
