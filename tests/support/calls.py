"""What tests of calls share: what webhooks tell of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from prometheus_client import CollectorRegistry
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.streams import INGEST_STREAM
from services.common.tracing import new_traceparent
from services.messaging.consumers.durable import ConsumerOptions
from services.messaging.consumers.voice import DURABLE, voice_consumer
from services.messaging.domain.call import CallReport, CallSeen, CallStatus, Recording
from services.messaging.providers.twilio import voice_webhooks
from services.messaging.usecases.calls.take_in import VoiceEvent

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CALLER = "+972501234567"
CALLED = "+14155238886"


def at(seconds: float) -> datetime:
    """A time after `START`."""
    return START + timedelta(seconds=seconds)


def seen(
    call_id: str = "CA1", *, seconds: float = 0, caller: str = CALLER, called: str = CALLED
) -> CallSeen:
    """A call as a webhook shows it, `seconds` after `START`."""
    return CallSeen("twilio", call_id, caller, called, at(seconds))


def report(
    status: CallStatus,
    call_id: str = "CA1",
    *,
    seconds: float = 0,
    provider_at: datetime | None = None,
    duration: float | None = None,
) -> CallReport:
    """A status callback."""
    return CallReport(
        call=seen(call_id, seconds=seconds),
        status=status,
        key=f"callstatus:{call_id}:{status.value}",
        provider_at=provider_at,
        duration=None if duration is None else timedelta(seconds=duration),
    )


def recording(
    turn: int = 1,
    call_id: str = "CA1",
    *,
    recording_id: str | None = None,
    seconds: float = 0,
    duration: float | None = None,
    digits: str = "",
    voicemail: bool = False,
    absent: bool = False,
    caller: str = CALLER,
) -> Recording:
    """What a caller said in a turn."""
    recording_id = recording_id or f"RE-{call_id}-{turn}"
    return Recording(
        call=seen(call_id, seconds=seconds, caller=caller, called=CALLED if caller else ""),
        turn=turn,
        recording_id=recording_id,
        url=f"https://api.twilio.com/recordings/{recording_id}",
        duration=None if duration is None else timedelta(seconds=duration),
        digits=digits,
        voicemail=voicemail,
        absent=absent,
        heard_at=at(seconds),
    )


def webhook(
    form: Mapping[str, str] | Sequence[tuple[str, str]],
    query: Mapping[str, str] | None = None,
    *,
    seconds: float = 0,
    provider: str = "twilio",
) -> WebhookReceived:
    """A webhook as the edge journals it."""
    pairs = form.items() if isinstance(form, Mapping) else form
    received = Timestamp()
    received.FromDatetime(at(seconds))
    return WebhookReceived(
        provider=provider,
        received_at=received,
        parameters=[Parameter(name=name, value=value) for name, value in pairs],
        query_parameters=[
            Parameter(name=name, value=value) for name, value in (query or {}).items()
        ],
    )


def voice_event(
    kind: EventKind,
    key: str,
    form: Mapping[str, str],
    query: Mapping[str, str] | None = None,
    *,
    seconds: float = 0,
    provider: str = "twilio",
) -> JournalEvent:
    """A journaled webhook about a call."""
    return JournalEvent(
        kind=kind,
        key=key,
        source="/webhook/voice",
        time=at(seconds),
        data=webhook(form, query, seconds=seconds, provider=provider).SerializeToString(),
        traceparent=new_traceparent(),
    )


def call_event(call_id: str = "CA1", *, seconds: float = 0) -> JournalEvent:
    """Somebody calls."""
    return voice_event(
        EventKind.VOICE_CALL,
        f"call:{call_id}",
        {"CallSid": call_id, "From": CALLER, "To": CALLED, "CallStatus": "ringing"},
        seconds=seconds,
    )


def recording_event(
    turn: int = 1, call_id: str = "CA1", *, seconds: float = 0, voicemail: bool = False
) -> JournalEvent:
    """The caller spoke."""
    recording_id = f"RE-{call_id}-{turn}"
    return voice_event(
        EventKind.VOICE_RECORDING,
        f"recording:{recording_id}:action",
        {
            "CallSid": call_id,
            "From": CALLER,
            "To": CALLED,
            "RecordingSid": recording_id,
            "RecordingUrl": f"https://api.twilio.com/recordings/{recording_id}",
            "RecordingDuration": "3",
        },
        {"turn": str(turn), **({"voicemail": "1"} if voicemail else {})},
        seconds=seconds,
    )


def continuation_event(
    turn: int, after: str, part: int = 0, call_id: str = "CA1", *, seconds: float = 0
) -> JournalEvent:
    """The call goes on."""
    return voice_event(
        EventKind.VOICE_CONTINUATION,
        f"continue:{call_id}:{turn}:{after}:{part}",
        {"CallSid": call_id, "From": CALLER, "To": CALLED},
        {"turn": str(turn), "after": after, "part": str(part)},
        seconds=seconds,
    )


def status_event(
    status: str, call_id: str = "CA1", *, seconds: float = 0, duration: str = "30"
) -> JournalEvent:
    """A status callback."""
    return voice_event(
        EventKind.VOICE_STATUS,
        f"callstatus:{call_id}:{status}",
        {
            "CallSid": call_id,
            "From": CALLER,
            "To": CALLED,
            "CallStatus": status,
            "CallDuration": duration,
        },
        seconds=seconds,
    )


@contextlib.asynccontextmanager
async def consuming_calls(
    client: Client, handle: Callable[[Sequence[VoiceEvent]], Awaitable[None]]
) -> AsyncIterator[None]:
    """A consumer of calls that runs while the context is open, and is then stopped in order."""
    consumer = voice_consumer(
        client,
        handle,
        {"twilio": voice_webhooks},
        registry=CollectorRegistry(),
        options=ConsumerOptions(
            fetch_seconds=0.2, ack_wait_seconds=5, max_attempts=3, first_delay_seconds=0.05
        ),
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def calls_settled(client: Client) -> Callable[[], Awaitable[bool]]:
    """Whether every event of calls was delivered and dealt with; the last event must be one."""

    async def nothing_left() -> bool:
        js = client.jetstream()
        last = (await js.stream_info(INGEST_STREAM)).state.last_seq
        try:
            info = await js.consumer_info(INGEST_STREAM, DURABLE.name)
        except NotFoundError:
            return False
        return info.ack_floor is not None and info.ack_floor.stream_seq >= last

    return nothing_left
