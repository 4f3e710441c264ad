"""A script as TwiML (https://www.twilio.com/docs/voice/twiml)."""

import re
from typing import Final
from urllib.parse import urlencode

import structlog
from switchboard.voice.v1 import script_pb2
from twilio.twiml.voice_response import (  # type: ignore[import-untyped]  # has no types
    Dial,
    Hangup,
    Pause,
    Play,
    Record,
    Redirect,
    Say,
    VoiceResponse,
)

from services.common.audio import AUDIO_ID
from services.common.callers import has_number

log = structlog.get_logger(__name__)

RECORDING_PATH: Final = "/webhook/handle_recording"
RECORDING_STATUS_PATH: Final = "/webhook/recording_status"
CONTINUE_PATH: Final = "/webhook/voice/continue"

# Without this Twilio tries again only when it can't connect, and ends a call whose edge dies
# before it has answered. Signatures don't cover it
# (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides).
_OVERRIDES: Final = "rc=2&rp=all"

# Twilio's default voice doesn't speak every language
# (https://www.twilio.com/docs/voice/twiml/say/text-speech).
_VOICES = {"he-IL": "Google.he-IL-Wavenet-A"}

# Google's and Amazon's voices take no longer text in one <Say>.
_MAX_SAY: Final = 3000
# Control characters, and what XML 1.0 has no way to hold.
_UNSPEAKABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*", re.ASCII)
_VOICE = re.compile(r"[\w.-]{1,100}", re.ASCII)
_NUMBER = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)

_LAST: Final = frozenset({"redirect", "dial", "hang_up"})


class TwimlRenderer:
    """Renders scripts for calls whose webhooks come to `public_host`.

    Args:
        public_host: The origin under which Twilio reaches us, as signatures have it.
    """

    def __init__(self, public_host: str) -> None:
        self._origin = public_host

    def render(self, script: script_pb2.Script, *, caller: str = "", called: str = "") -> bytes:
        """TwiML, whatever the script holds.

        What comes after a redirect, a call or a hang-up is left out: nobody gets there. A script
        that ends without one asks for more when it ends in a recording, else it hangs up. What
        Twilio would stumble over is left out, for it would end the call.

        Args:
            caller: Shown to the person who is called, where it is a number.
            called: Shown otherwise.
        """
        shown = called if has_number(called) and not has_number(caller) else None
        response = VoiceResponse()
        last = None
        for step in script.steps:
            last = step
            for verb in self._verbs(step, shown):
                response.append(verb)
            if step.WhichOneof("step") in _LAST:
                break
        else:
            response.append(self._ending(last))
        return str(response).encode()

    def _ending(self, last: script_pb2.Step | None) -> object:
        if last is not None and last.HasField("record") and not last.record.voicemail:
            return self._redirect(turn=last.record.turn, after="silence")
        return Hangup()

    def _verbs(self, step: script_pb2.Step, shown: str | None) -> list[object]:
        match step.WhichOneof("step"):
            case "play":
                return self._play(step.play.audio_id)
            case "say":
                return _say(step.say)
            case "pause":
                return [Pause(length=_seconds(step.pause.seconds, most=60))]
            case "record":
                return [self._record(step.record)]
            case "redirect" if step.redirect.WhichOneof("after") == "silence":
                return [self._redirect(turn=step.redirect.turn, after="silence")]
            case "redirect":
                part = step.redirect.part
                return [self._redirect(turn=step.redirect.turn, after="part", part=part)]
            case "dial":
                return [self._dial(step.dial, shown)]
            case "hang_up":
                return [Hangup()]
            case unknown:
                # An older edge than messaging.
                log.error("a step of a script is unknown and left out", step=unknown)
                return []

    def _play(self, audio_id: str) -> list[object]:
        if not AUDIO_ID.fullmatch(audio_id):
            log.error("a script plays what is no audio file; it is left out")
            return []
        return [Play(f"{self._origin}/audio/{audio_id}.mp3")]

    def _record(self, record: script_pb2.Record) -> object:
        query: dict[str, str | int] = {"turn": record.turn}
        if record.voicemail:
            query["voicemail"] = 1
        return Record(
            action=self._url(RECORDING_PATH, query),
            method="POST",
            recording_status_callback=self._url(RECORDING_STATUS_PATH, query),
            recording_status_callback_method="POST",
            recording_status_callback_event="completed absent",
            # Cutting silence off makes Twilio finish the file later.
            trim="do-not-trim",
            play_beep=record.beep,
            max_length=_seconds(record.max_seconds, most=3600),
            timeout=_seconds(record.silence_seconds, most=60),
        )

    def _redirect(self, **query: str | int) -> object:
        return Redirect(self._url(CONTINUE_PATH, query), method="POST")

    def _dial(self, dial: script_pb2.Dial, shown: str | None) -> object:
        if not _NUMBER.fullmatch(dial.number):
            log.error("a script calls what is no number; it goes on as if nobody had answered")
            return self._redirect(turn=dial.turn, after="dial")
        query: dict[str, str | int] = {"turn": dial.turn, "after": "dial"}
        return Dial(
            dial.number,
            action=self._url(CONTINUE_PATH, query),
            method="POST",
            timeout=_seconds(dial.timeout_seconds, most=600),
            # Twilio passes on the caller's otherwise, and a call from no number may be refused
            # (https://www.twilio.com/docs/api/errors/13214).
            caller_id=shown,
        )

    def _url(self, path: str, query: dict[str, str | int]) -> str:
        return f"{self._origin}{path}?{urlencode(query)}#{_OVERRIDES}"


def _say(say: script_pb2.Say) -> list[object]:
    language = say.language if _LANGUAGE.fullmatch(say.language) else None
    voice = say.voice if _VOICE.fullmatch(say.voice) else _VOICES.get(say.language)
    text = _UNSPEAKABLE.sub(" ", say.text).strip()
    return [Say(piece, language=language, voice=voice) for piece in _pieces(text)]


def _seconds(wanted: int, *, most: int) -> int:
    return min(max(1, wanted), most)


def _pieces(text: str) -> list[str]:
    """The text in pieces that a voice takes, cut between words where there are any."""
    pieces = []
    while len(text) > _MAX_SAY:
        cut = text.rfind(" ", 1, _MAX_SAY)
        cut = cut if cut > 0 else _MAX_SAY
        pieces.append(text[:cut])
        text = text[cut:].lstrip()
    return [*pieces, text] if text else pieces
