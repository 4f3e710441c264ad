"""What Twilio's webhooks about calls say, in our words.

Parameters: https://www.twilio.com/docs/voice/twiml#request-parameters,
https://www.twilio.com/docs/voice/api/call-resource#statuscallbackevent,
https://www.twilio.com/docs/voice/twiml/record#attributes-action and
https://www.twilio.com/docs/voice/twiml/dial#action. What identifies a step of a call (turn, part,
voicemail) stands in the query of addresses that the edge gave out.
"""

import re
from datetime import datetime, timedelta

from switchboard.events.v1.events_pb2 import WebhookReceived

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind
from services.messaging.domain.call import (
    CallEvent,
    CallReport,
    CallSeen,
    CallStatus,
    Recording,
)
from services.messaging.providers.twilio.dates import rfc5322_time
from services.messaging.providers.twilio.parameters import Parameters, event_key
from services.messaging.providers.twilio.webhooks import PROVIDER
from services.messaging.usecases.calls.requests import Dialed, Incoming, Played, Silent
from services.messaging.usecases.calls.take_in import VoiceEvent

STATUSES = {
    "queued": CallStatus.QUEUED,
    "initiated": CallStatus.QUEUED,
    "ringing": CallStatus.RINGING,
    "in-progress": CallStatus.IN_PROGRESS,
    "answered": CallStatus.IN_PROGRESS,
    "busy": CallStatus.BUSY,
    "failed": CallStatus.FAILED,
    "no-answer": CallStatus.NO_ANSWER,
    "canceled": CallStatus.CANCELED,
    "completed": CallStatus.COMPLETED,
}
"""Twilio's words for where a call stands. A word that is missing has no effect."""

KINDS = {
    EventKind.VOICE_CALL: "call",
    EventKind.VOICE_STATUS: "status",
    EventKind.VOICE_RECORDING: "recording",
    EventKind.VOICE_CONTINUATION: "continuation",
}

_NO_RECORDING = ("absent", "failed")
_STILL_RECORDING = "in-progress"
_PERSON_ANSWERED = ("completed", "answered")

_MAX_ID = 128
_MAX_PARTY = 255
_MAX_DIGITS = 255
_MAX_URL = 2048
_MAX_TURN = 10_000
_MAX_PART = 10_000
_LONGEST = timedelta(hours=24)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def voice_event(
    key: str, kind: EventKind, webhook: WebhookReceived, received_at: datetime
) -> VoiceEvent:
    """Read a webhook about a call.

    Args:
        key: The event's natural key.
        received_at: Aware.

    Raises:
        InvalidInputError: It can't be told which call or turn it is about; the text names the
            parameter, and never its value.
    """
    form, query = Parameters(webhook.parameters), Parameters(webhook.query_parameters)
    call = CallSeen(
        provider=PROVIDER,
        call_id=form.required("CallSid", at_most=_MAX_ID),
        caller=form.first("From")[:_MAX_PARTY],
        called=form.first("To")[:_MAX_PARTY],
        at=received_at,
    )
    key = event_key(key)
    payload = form.payload()
    if steps := query.payload():
        # No parameter of Twilio's has such a name.
        payload["?"] = steps
    kept = CallEvent(key=key, kind=KINDS[kind], call=call, payload=payload)
    if kind is EventKind.VOICE_STATUS:
        return VoiceEvent(kept, _report(key, call, form))
    if kind is EventKind.VOICE_RECORDING:
        return VoiceEvent(kept, _recording(call, form, query))
    if kind is EventKind.VOICE_CONTINUATION:
        return VoiceEvent(kept, _continuation(form, query))
    return VoiceEvent(kept, Incoming())


def _report(key: str, call: CallSeen, form: Parameters) -> CallReport | Incoming:
    word = form.first("CallStatus")
    if not word:
        raise InvalidInputError("CallStatus", "is missing")
    status = STATUSES.get(word.lower())
    if status is None:
        return Incoming()
    return CallReport(
        call=call,
        status=status,
        key=key,
        provider_at=_time(form.first("Timestamp"), call.at),
        duration=_seconds(form.first("CallDuration")) if status.has_ended else None,
    )


def _recording(
    call: CallSeen, form: Parameters, query: Parameters
) -> Recording | Silent | Incoming:
    turn = _number(query, "turn", 1, _MAX_TURN)
    # Only the recording's own callback has it; the caller's request is about one that is complete.
    status = form.first("RecordingStatus").lower()
    if status == _STILL_RECORDING:
        return Incoming()
    absent = status in _NO_RECORDING
    recording_id = form.first("RecordingSid")
    if absent and not recording_id:
        return Silent(turn)
    return Recording(
        call=call,
        turn=turn,
        recording_id=form.required("RecordingSid", at_most=_MAX_ID),
        url="" if absent else form.required("RecordingUrl", at_most=_MAX_URL),
        duration=_seconds(form.first("RecordingDuration")),
        digits=form.first("Digits")[:_MAX_DIGITS],
        voicemail=query.first("voicemail") == "1",
        absent=absent,
        heard_at=call.at,
    )


def _continuation(form: Parameters, query: Parameters) -> Played | Silent | Dialed:
    turn = _number(query, "turn", 1, _MAX_TURN)
    match query.first("after"):
        case "part":
            return Played(turn, _number(query, "part", 0, _MAX_PART))
        case "silence":
            return Silent(turn)
        case "dial":
            return Dialed(turn, form.first("DialCallStatus").lower() in _PERSON_ANSWERED)
    raise InvalidInputError("after", "is neither part, silence nor dial")


def _number(query: Parameters, name: str, least: int, most: int) -> int:
    text = query.first(name)
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidInputError(name, f"is no number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> timedelta | None:
    """A length of time; None where it is missing or none that a call can have."""
    if not _NUMBER.fullmatch(text):
        return None
    length = timedelta(seconds=int(text))
    return length if length <= _LONGEST else None


def _time(text: str, received_at: datetime) -> datetime | None:
    """RFC 2822, for example "Mon, 16 Mar 2026 03:45:01 +0000"; None where it can't be believed."""
    try:
        at = rfc5322_time(text)
    except ValueError:
        return None
    return at if abs(received_at - at) <= _LONGEST else None
