"""Removing old events from the journal, and never one that hasn't been handled.

JetStream's own limits by age or size don't ask whether a consumer has seen a message, so the
journal has none but the size at which it refuses more. Without this it would fill up.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.common.journal.streams import ACTS_STREAM, INGEST_STREAM
from services.messaging.consumers.durable import Durable
from services.messaging.ports.clock import Clock

log = structlog.get_logger(__name__)


async def keep_journal_short(
    client: Client,
    *,
    durables: Sequence[Durable],
    max_age: timedelta,
    clock: Clock,
    ready: asyncio.Event,
    every_seconds: float = 3600.0,
) -> None:
    """Remove what is older than `max_age` and was handled by all of `durables`, for ever.

    Args:
        durables: Every consumer of the journal, by whatever subjects.
        ready: Set when the streams are there.
    """
    await ready.wait()
    while True:
        try:
            removed = await remove_old_events(
                client.jetstream(), durables=durables, before=clock() - max_age
            )
        except NotFoundError:
            # A consumer makes its durable with its first fetch: nothing was handled yet.
            pass
        except (nats.errors.Error, OSError) as error:
            log.warning("old events stay in the journal for now", error=repr(error))
        else:
            if removed:
                log.info("old events were removed from the journal", events=removed)
        try:
            await remove_old_acts(client.jetstream(), before=clock() - max_age)
        except NotFoundError:
            # Nothing was done yet.
            pass
        except (nats.errors.Error, OSError) as error:
            log.warning("old acts stay in the journal for now", error=repr(error))
        await asyncio.sleep(every_seconds)


async def remove_old_acts(js: JetStreamContext, *, before: datetime) -> int:
    """Remove what messaging did and journaled before a time; returns how much.

    Nobody has to have handled it: it is there for a replay alone.

    Raises:
        nats.errors.Error: The broker didn't answer, or there is no such stream.
    """
    state = (await js.stream_info(ACTS_STREAM)).state
    end = await _first_since(js, ACTS_STREAM, state.first_seq, state.last_seq, before)
    if state.messages == 0 or end <= state.first_seq:
        return 0
    await js.purge_stream(ACTS_STREAM, seq=end)
    return state.messages - (await js.stream_info(ACTS_STREAM)).state.messages


async def remove_old_events(
    js: JetStreamContext, *, durables: Sequence[Durable], before: datetime
) -> int:
    """Remove events journaled before a time that all of `durables` have handled; returns how many.

    Raises:
        nats.errors.Error: The broker didn't answer, or one of the consumers isn't there.
    """
    state = (await js.stream_info(INGEST_STREAM)).state
    end = await _first_since(js, INGEST_STREAM, state.first_seq, state.last_seq, before)
    for durable in durables:
        end = min(end, await _first_unhandled(js, durable, state.last_seq))
    if state.messages == 0 or end <= state.first_seq:
        return 0
    await js.purge_stream(INGEST_STREAM, seq=end)
    return state.messages - (await js.stream_info(INGEST_STREAM)).state.messages


async def _first_unhandled(js: JetStreamContext, durable: Durable, last: int) -> int:
    """The first sequence that a consumer still needs; `last + 1` when it needs none up to there.

    Not merely the one after those it has acknowledged: a consumer that seldom gets anything stands
    far behind the end of the journal.
    """
    consumer = await js.consumer_info(INGEST_STREAM, durable.name)
    acknowledged = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
    try:
        found = await js.get_msg(
            INGEST_STREAM, seq=acknowledged + 1, subject=durable.subjects, next=True
        )
    except NotFoundError:
        return last + 1
    return found.seq or acknowledged + 1


async def _first_since(
    js: JetStreamContext, stream: str, low: int, high: int, time: datetime
) -> int:
    """The first sequence journaled at `time` or later; `high + 1` when there is none."""
    high += 1
    while low < high:
        middle = (low + high) // 2
        try:
            # The next one that is left, for sequences may be missing.
            found = await js.get_msg(stream, seq=middle, subject=">", next=True)
        except NotFoundError:
            high = middle
            continue
        if found.time is not None and found.time < time:
            low = (found.seq or middle) + 1
        else:
            high = middle
    return low
