"""Reading a part of a stream in order, without a trace: nothing is acknowledged or remembered."""

import asyncio
import bisect
import contextlib
import heapq
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.common.errors import UnavailableError

log = structlog.get_logger(__name__)

_INACTIVE_SECONDS = 60.0
_FETCH_SECONDS = 5.0
_TRIES = 6
_PAUSE_SECONDS = 0.5


async def sequence_at(js: JetStreamContext, stream: str, time: datetime) -> int:
    """The first sequence that the stream stored at `time` or later; one more than its last when
    there is none.

    Raises:
        nats.errors.Error: The stream can't be asked.
    """
    config = _config(subject=None, deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=time)
    info = await js.add_consumer(stream, config)
    await _forget(js, stream, info.name)
    return info.delivered.stream_seq + 1 if info.delivered else 1


async def count_events(
    js: JetStreamContext, stream: str, *, first: int, last: int, subject: str | None = None
) -> int:
    """How many messages with a sequence from `first` to `last` match `subject`.

    Raises:
        nats.errors.Error: The stream can't be asked.
    """
    from_first = await _pending(js, stream, first, subject)
    return from_first - await _pending(js, stream, last + 1, subject)


async def read_events(
    js: JetStreamContext,
    stream: str,
    *,
    first: int = 1,
    last: int,
    subject: str | None = None,
    headers_only: bool = False,
    batch_size: int = 500,
) -> AsyncGenerator[Sequence[Msg], None]:
    """Every message with a sequence from `first` to `last`, in order, in batches.

    A broken connection or a consumer that is gone only makes it begin again where it was.

    Args:
        subject: May hold wildcards; None for all.
        headers_only: Leave the data on the server; its size stands in `Nats-Msg-Size`.

    Raises:
        UnavailableError: The stream doesn't answer.
    """
    position, failures = first, 0
    while position <= last:
        name, began_at, trouble = None, position, None
        try:
            info = await js.add_consumer(
                stream,
                _config(
                    subject=subject,
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=max(position, 1),
                    headers_only=headers_only or None,
                ),
            )
            name = info.name
            if not info.num_pending:
                return
            async with contextlib.aclosing(_batches(js, stream, name, batch_size)) as batches:
                async for batch in batches:
                    wanted = [one for one in batch if one.metadata.sequence.stream <= last]
                    if wanted:
                        yield wanted
                    position = batch[-1].metadata.sequence.stream + 1
                    if batch[-1].metadata.num_pending == 0 or len(wanted) < len(batch):
                        return
        except (nats.errors.Error, OSError) as error:
            trouble = error
        finally:
            if name is not None:
                await _forget(js, stream, name)
        failures = failures + 1 if position == began_at else 0
        if failures == _TRIES:
            raise UnavailableError(f"the stream {stream} doesn't answer") from trouble
        log.warning("the stream stopped, going on", stream=stream, error=repr(trouble))
        await asyncio.sleep(_PAUSE_SECONDS * failures)


async def in_order(
    *readings: AsyncGenerator[Sequence[Msg], None],
) -> AsyncGenerator[Sequence[Msg], None]:
    """Readings of several streams as one, by the time at which each stream stored a message."""
    reading = dict(enumerate(readings))
    ahead: dict[int, list[_Timed]] = {number: [] for number in reading}
    latest = dict.fromkeys(reading, _EARLIEST)
    while True:
        for number, one in tuple(reading.items()):
            if not ahead[number]:
                try:
                    batch = await anext(one)
                except StopAsyncIteration:
                    del reading[number]
                    continue
                for message in batch:
                    # A clock that was set back: what came after it is later all the same.
                    latest[number] = max(latest[number], message.metadata.timestamp)
                    ahead[number].append((latest[number], message))
        waiting = [messages for messages in ahead.values() if messages]
        if not waiting:
            return
        # What comes next in any of the streams isn't earlier than this.
        end = min(messages[-1][0] for messages in waiting)
        ready = []
        for messages in waiting:
            count = bisect.bisect_right(messages, end, key=_time)
            ready.append(messages[:count])
            del messages[:count]
        yield [message for _, message in heapq.merge(*ready, key=_time)]


_Timed = tuple[datetime, Msg]
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def _time(timed: _Timed) -> datetime:
    return timed[0]


async def _batches(
    js: JetStreamContext, stream: str, consumer: str, batch_size: int
) -> AsyncGenerator[Sequence[Msg], None]:
    """Batches without a gap; ends where there is one, for then something was lost on the way."""
    subscription = await js.pull_subscribe_bind(consumer, stream)
    expected = 1
    try:
        while True:
            batch = await subscription.fetch(batch_size, timeout=_FETCH_SECONDS)
            whole = []
            for one in batch:
                if one.metadata.sequence.consumer != expected:
                    break
                expected += 1
                whole.append(one)
            if whole:
                yield whole
            if len(whole) < len(batch):
                return
    finally:
        with contextlib.suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()


def _config(
    *,
    subject: str | None,
    deliver_policy: DeliverPolicy,
    opt_start_seq: int | None = None,
    opt_start_time: datetime | None = None,
    headers_only: bool | None = None,
) -> ConsumerConfig:
    return ConsumerConfig(
        name=f"reader-{uuid.uuid4().hex}",
        ack_policy=AckPolicy.NONE,
        deliver_policy=deliver_policy,
        opt_start_seq=opt_start_seq,
        opt_start_time=opt_start_time,
        filter_subject=subject,
        headers_only=headers_only,
        # The server removes it when a reader is gone without a word.
        inactive_threshold=_INACTIVE_SECONDS,
        mem_storage=True,
        num_replicas=1,
    )


async def _pending(js: JetStreamContext, stream: str, first: int, subject: str | None) -> int:
    config = _config(
        subject=subject,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(first, 1),
    )
    info = await js.add_consumer(stream, config)
    await _forget(js, stream, info.name)
    return info.num_pending or 0


async def _forget(js: JetStreamContext, stream: str, consumer: str) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await js.delete_consumer(stream, consumer)
