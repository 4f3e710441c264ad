"""From messaging's contract to the JSON."""

from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.messaging.v1 import conversation_pb2, message_pb2, provider_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.voice.v1 import call_pb2

from services.webhook.api import models

_SOURCES = {
    message_pb2.TIME_SOURCE_PROVIDER: "provider",
    message_pb2.TIME_SOURCE_RECEIVED: "received",
}
# A word that says who wrote it in both directions; gRPC says which way it came.
_AUTHORS = {"api": "program"}


def message(found: message_pb2.Message) -> models.Message:
    """A message."""
    return models.Message(**_message_members(found))


def message_with_history(found: pb.GetMessageResponse) -> models.MessageWithHistory:
    """A message and its events."""
    return models.MessageWithHistory(
        **_message_members(found.message), events=[event(one) for one in found.events]
    )


def event(found: message_pb2.MessageEvent) -> models.MessageEvent:
    """An event."""
    return models.MessageEvent(
        cursor=found.cursor,
        message_id=found.message_id,
        kind=_word(message_pb2.MessageEventKind, "MESSAGE_EVENT_KIND_", found.kind),
        status=_word(message_pb2.MessageStatus, "MESSAGE_STATUS_", found.status),
        occurred_at=_sourced(found, "occurred_at"),
        provider=found.provider or None,
        outcome=found.outcome or None,
        error=_failure(found.error_code, found.error_message),
        origin=found.origin or None,
        text=found.text if found.HasField("text") else None,
    )


def conversation(found: conversation_pb2.Conversation) -> models.Conversation:
    """A conversation."""
    contact = found.contact
    return models.Conversation(
        id=found.id,
        contact=models.Contact(
            id=contact.id,
            display_name=contact.display_name or None,
            identities=[
                models.Identity(kind=one.kind, value=one.value) for one in contact.identities
            ],
            opted_out_at=_time(contact, "opted_out_at"),
        ),
        contact_address=found.contact_address,
        own_address=found.own_address,
        created_at=_datetime(found.created_at),
        last_message_at=_time(found, "last_message_at"),
        window_closes_at=_time(found, "window_closes_at"),
        unread_count=found.unread_count,
        assistant_paused_at=_time(found, "assistant_paused_at"),
        assistant_paused_by=found.assistant_paused_by or None,
        last_message=message(found.last_message) if found.HasField("last_message") else None,
    )


def status(found: pb.GetStatusResponse) -> models.Status:
    """The providers and the queues."""
    queues = found.queues
    return models.Status(
        provider=_provider(found.provider),
        fallback=_provider(found.fallback) if found.HasField("fallback") else None,
        queues=models.QueueSizes(
            due=queues.due,
            sending=queues.sending,
            unknown=queues.unknown,
            replies=queues.replies,
            parked=queues.parked,
            oldest_unsettled_at=_time(queues, "oldest_unsettled_at"),
        ),
    )


def call(found: call_pb2.Call) -> models.Call:
    """A call."""
    return models.Call(**_call_members(found))


def call_with_turns(found: call_pb2.Call) -> models.CallWithTurns:
    """A call and its turns."""
    return models.CallWithTurns(**_call_members(found), turns=[_turn(turn) for turn in found.turns])


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """A moment as the contract has it."""
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _message_members(found: message_pb2.Message) -> dict[str, Any]:
    return {
        "id": found.id,
        "conversation_id": found.conversation_id,
        "direction": _word(message_pb2.Direction, "DIRECTION_", found.direction),
        "status": _word(message_pb2.MessageStatus, "MESSAGE_STATUS_", found.status),
        "contact_address": found.contact_address,
        "own_address": found.own_address,
        "body": found.body,
        "media": [
            models.Media(
                id=one.id or None,
                url=one.url,
                content_type=one.content_type or None,
                size_bytes=one.size_bytes or None,
                problem=one.problem or None,
            )
            for one in found.media
        ],
        "template": models.Template(id=found.template.id, variables=dict(found.template.variables))
        if found.HasField("template")
        else None,
        "author": _AUTHORS.get(found.author, found.author),
        "provider": found.provider,
        "provider_message_id": found.provider_message_id or None,
        "reply_to": found.reply_to_message_id or None,
        "answers": found.answers_message_id or None,
        "error": _failure(found.error_code, found.error_message),
        "created_at": _datetime(found.created_at),
        "sent_at": _sourced(found, "sent_at"),
        "delivered_at": _sourced(found, "delivered_at"),
        "read_at": _sourced(found, "read_at"),
        "failed_at": _sourced(found, "failed_at"),
    }


def _call_members(found: call_pb2.Call) -> dict[str, Any]:
    return {
        "id": found.id,
        "provider": found.provider,
        "status": _word(call_pb2.CallStatus, "CALL_STATUS_", found.status),
        "outcome": _word(call_pb2.CallOutcome, "CALL_OUTCOME_", found.outcome),
        "caller": found.caller,
        "called": found.called,
        "language": found.language or None,
        "started_at": _datetime(found.started_at),
        "answered_at": _time(found, "answered_at"),
        "ended_at": _time(found, "ended_at"),
        "seconds": _seconds(found, "duration"),
    }


def _turn(found: call_pb2.Turn) -> models.Turn:
    stages = models.TurnTimings.model_fields
    return models.Turn(
        number=found.number,
        state=_word(call_pb2.TurnState, "TURN_STATE_", found.state),
        voicemail=found.voicemail,
        transcript=found.transcript or None,
        answer=[
            models.AnswerPart(
                text=part.text,
                audio_url=f"/audio/{part.audio_id}.mp3" if part.audio_id else None,
                played=part.played,
            )
            for part in found.answer
        ],
        digits=found.digits or None,
        recording_id=found.recording_id or None,
        recording_seconds=_seconds(found, "recording_duration"),
        heard_at=_datetime(found.heard_at),
        timings=models.TurnTimings(**{name: _seconds(found.timings, name) for name in stages}),
        problem=found.problem or None,
    )


def _provider(found: provider_pb2.ProviderStatus) -> models.ProviderStatus:
    return models.ProviderStatus(
        name=found.name,
        state=_word(provider_pb2.ProviderState, "PROVIDER_STATE_", found.state),
        reason=found.reason or None,
        last_success_at=_time(found, "last_success_at"),
        last_failure_at=_time(found, "last_failure_at"),
        last_error=found.last_error or None,
        retry_at=_time(found, "retry_at"),
        pairing=_pairing(found.pairing) if found.HasField("pairing") else None,
    )


def _pairing(found: provider_pb2.Pairing) -> models.Pairing:
    return models.Pairing(
        qr=found.qr or None, code=found.code or None, expires_at=_time(found, "expires_at")
    )


def _word(enum: Any, prefix: str, value: int) -> Any:
    """The word of an enum's value, None when it is unspecified."""
    return enum.Name(value).removeprefix(prefix).lower() if value else None


def _failure(code: str, text: str) -> models.Failure | None:
    return models.Failure(code=code or None, message=text or None) if code or text else None


def _sourced(found: Any, name: str) -> Any:
    if not found.HasField(name):
        return None
    moment = cast(message_pb2.SourcedTime, getattr(found, name))
    return models.SourcedTime(
        time=_datetime(moment.time), source=cast(Any, _SOURCES[moment.source])
    )


def _time(found: Any, name: str) -> datetime | None:
    return _datetime(getattr(found, name)) if found.HasField(name) else None


def _seconds(found: Any, name: str) -> float | None:
    if not found.HasField(name):
        return None
    duration: Duration = getattr(found, name)
    return duration.ToTimedelta().total_seconds()


def _datetime(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
