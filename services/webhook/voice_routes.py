"""The webhooks of telephone calls, and what their events ask of messaging.

What identifies a step of a call stands in the query of addresses that we gave out ourselves
(`twiml.py`); the provider sends it back signed.
"""

import re
from dataclasses import dataclass
from typing import Literal

from switchboard.events.v1 import events_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind, JournalEvent
from services.webhook.routes import Responder, Values, WebhookRoute, required
from services.webhook.twiml import CONTINUE_PATH, RECORDING_PATH, RECORDING_STATUS_PATH

INCOMING_CALL_PATH = "/webhook/incoming_call"
CALL_STATUS_PATH = "/webhook/call_status"

MAX_TURN = 10_000
_MAX_PART = 10_000
_MAX_SECONDS = 24 * 3600
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_ANSWERED = ("completed", "answered")


@dataclass(frozen=True, slots=True)
class Continuation:
    """Why a call goes on.

    Attributes:
        part: Parts of the answer before this one have been played; 0 unless `after` is "part".
    """

    turn: int
    after: Literal["part", "silence", "dial"]
    part: int = 0


def voice_routes(responder: Responder) -> tuple[WebhookRoute, ...]:
    """The routes; `responder` answers those on which a caller waits."""
    return (
        WebhookRoute(
            name="incoming_call",
            path=INCOMING_CALL_PATH,
            provider="twilio",
            kind=EventKind.VOICE_CALL,
            key=_call_key,
            responder=responder,
        ),
        WebhookRoute(
            name="handle_recording",
            path=RECORDING_PATH,
            provider="twilio",
            kind=EventKind.VOICE_RECORDING,
            key=_recording_key,
            responder=responder,
        ),
        WebhookRoute(
            name="recording_status",
            path=RECORDING_STATUS_PATH,
            provider="twilio",
            kind=EventKind.VOICE_RECORDING,
            key=_recording_status_key,
        ),
        WebhookRoute(
            name="voice_continue",
            path=CONTINUE_PATH,
            provider="twilio",
            kind=EventKind.VOICE_CONTINUATION,
            key=_continuation_key,
            responder=responder,
        ),
        WebhookRoute(
            name="call_status",
            path=CALL_STATUS_PATH,
            provider="twilio",
            kind=EventKind.VOICE_STATUS,
            key=_call_status_key,
        ),
    )


def question(event: JournalEvent) -> pb.NextStepRequest:
    """What messaging is asked after an event of a route that has a responder."""
    received = events_pb2.WebhookReceived.FromString(event.data)
    form = {one.name: one.value for one in reversed(received.parameters)}
    query = {one.name: one.value for one in reversed(received.query_parameters)}
    asked = pb.NextStepRequest(
        provider=received.provider,
        call_id=form["CallSid"],
        caller=form.get("From", ""),
        called=form.get("To", ""),
    )
    if event.kind is EventKind.VOICE_CALL:
        asked.incoming.SetInParent()
    elif event.kind is EventKind.VOICE_RECORDING:
        seconds = form.get("RecordingDuration", "")
        asked.recorded.turn = _turn(query)
        asked.recorded.recording_id = form["RecordingSid"]
        asked.recorded.digits = form.get("Digits", "")
        asked.recorded.voicemail = query.get("voicemail") == "1"
        if _DIGITS.fullmatch(seconds):
            asked.recorded.duration_seconds = min(int(seconds), _MAX_SECONDS)
    else:
        continuation = _continuation(query)
        match continuation.after:
            case "part":
                asked.played.turn = continuation.turn
                asked.played.part = continuation.part
            case "silence":
                asked.silent.turn = continuation.turn
            case "dial":
                asked.dialed.turn = continuation.turn
                asked.dialed.answered = form.get("DialCallStatus", "").lower() in _ANSWERED
    return asked


def _call_key(form: Values, query: Values) -> str:
    return "call:" + required(form, "CallSid")


def _call_status_key(form: Values, query: Values) -> str:
    return f"callstatus:{required(form, 'CallSid')}:{required(form, 'CallStatus')}"


def _recording_key(form: Values, query: Values) -> str:
    required(form, "CallSid")
    _turn(query)
    return f"recording:{required(form, 'RecordingSid')}:action"


def _recording_status_key(form: Values, query: Values) -> str:
    required(form, "CallSid")
    _turn(query)
    return f"recording:{required(form, 'RecordingSid')}:{required(form, 'RecordingStatus')}"


def _continuation_key(form: Values, query: Values) -> str:
    call = required(form, "CallSid")
    continuation = _continuation(query)
    return f"continue:{call}:{continuation.turn}:{continuation.after}:{continuation.part}"


def _continuation(query: Values) -> Continuation:
    turn = _turn(query)
    match query.get("after"):
        case "part":
            return Continuation(turn, "part", _number(query, "part", 0, _MAX_PART))
        case "silence":
            return Continuation(turn, "silence")
        case "dial":
            return Continuation(turn, "dial")
    raise InvalidInputError("after", "must be part, silence or dial in the webhook's address")


def _turn(query: Values) -> int:
    return _number(query, "turn", 1, MAX_TURN)


def _number(query: Values, name: str, least: int, most: int) -> int:
    text = query.get(name, "")
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidInputError(
            name, f"must be a number from {least} to {most} in the webhook's address"
        )
    return int(text)
