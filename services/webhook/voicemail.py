"""What callers hear when messaging doesn't say: a moment's patience, an apology, voicemail."""

from enum import StrEnum
from typing import Final, Literal

from switchboard.voice.v1 import script_pb2

VoiceLanguage = Literal["en-US", "he-IL"]

_MAX_SECONDS: Final = 180
_SILENCE_SECONDS: Final = 5
_HANG_UP: Final = script_pb2.Step(hang_up=script_pb2.HangUp())


class Words(StrEnum):
    """What there is to say."""

    GREETING = "greeting"
    """For a call that has just come in; then a message is recorded."""
    APOLOGY = "apology"
    """For a caller who was already spoken to; then a message is recorded."""
    GOODBYE = "goodbye"
    """For a caller who has left a message; then the call ends."""
    MOMENT = "moment"
    """For a caller who has asked something; then it is asked again what follows."""


_TEXTS: dict[VoiceLanguage, dict[Words, str]] = {
    "en-US": {
        Words.GREETING: (
            "Hello. Nobody can take your call right now."
            " Please leave a message after the tone, and we will get back to you."
        ),
        Words.APOLOGY: (
            "I am sorry, I can't answer that right now."
            " Please leave a message after the tone, and we will get back to you."
        ),
        Words.GOODBYE: "Thank you. Goodbye.",
        Words.MOMENT: "One moment, please.",
    },
    "he-IL": {
        Words.GREETING: "שלום. אין באפשרותנו לענות כרגע. אנא השאירו הודעה אחרי הצליל ונחזור אליכם.",
        Words.APOLOGY: (
            "סליחה, אין באפשרותי לענות על כך כרגע. אנא השאירו הודעה אחרי הצליל ונחזור אליכם."
        ),
        Words.GOODBYE: "תודה. להתראות.",
        Words.MOMENT: "רק רגע, בבקשה.",
    },
}


class Voicemail:
    """Scripts that need nobody."""

    def __init__(self, language: VoiceLanguage) -> None:
        self._language = language
        self._texts = _TEXTS[language]

    def script(self, words: Words, *, turn: int) -> script_pb2.Script:
        """A script that ends the call, save for one that asks for patience.

        Args:
            turn: The number that the caller's message gets, or of what the caller asked.
        """
        if words is Words.MOMENT:
            redirect = script_pb2.Redirect(turn=turn, part=0)
            return script_pb2.Script(steps=[self._say(words), script_pb2.Step(redirect=redirect)])
        goodbye = [self._say(Words.GOODBYE), _HANG_UP]
        if words is Words.GOODBYE:
            return script_pb2.Script(steps=goodbye)
        record = script_pb2.Record(
            turn=turn,
            max_seconds=_MAX_SECONDS,
            silence_seconds=_SILENCE_SECONDS,
            beep=True,
            voicemail=True,
        )
        return script_pb2.Script(steps=[self._say(words), script_pb2.Step(record=record), *goodbye])

    def _say(self, words: Words) -> script_pb2.Step:
        text = self._texts[words]
        return script_pb2.Step(say=script_pb2.Say(text=text, language=self._language))
