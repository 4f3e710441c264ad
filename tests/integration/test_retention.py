"""Old events leave the journal, on a real broker."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from services.common.journal.streams import (
    ACTS_STREAM,
    INGEST_STREAM,
    ensure_acts_stream,
    ensure_ingest_consumer,
    ensure_streams,
)
from services.messaging.consumers.durable import Durable
from services.messaging.consumers.ingest import DURABLE
from services.messaging.consumers.retention import remove_old_acts, remove_old_events
from tests.support.edge import journal_client
from tests.support.nats import NatsServer


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal_client(nats_server.url) as client:
        yield client


@pytest.fixture
async def js(client: Client) -> JetStreamContext:
    js = client.jetstream()
    await ensure_streams(js, replicas=1, max_bytes=1024 * 1024)
    await make(js, DURABLE)
    return js


async def make(js: JetStreamContext, durable: Durable) -> None:
    await ensure_ingest_consumer(
        js,
        durable=durable.name,
        subjects=durable.subjects,
        ack_wait_seconds=30,
        max_deliver=-1,
    )


async def journal(js: JetStreamContext, count: int) -> None:
    for number in range(count):
        await js.publish("ingest.whatsapp.message", str(number).encode(), timeout=60)


async def acknowledge(js: JetStreamContext, count: int, durable: Durable = DURABLE) -> None:
    subscription = await js.pull_subscribe_bind(durable.name, INGEST_STREAM)
    for event in await subscription.fetch(count):
        await event.ack_sync()
    await subscription.unsubscribe()


async def left(js: JetStreamContext) -> list[int]:
    state = (await js.stream_info(INGEST_STREAM)).state
    return list(range(state.first_seq, state.last_seq + 1)) if state.messages else []


async def test_only_old_events_go(js: JetStreamContext) -> None:
    """What was journaled before the time goes, what came later stays."""
    await journal(js, 5)
    between = datetime.now(UTC)
    await journal(js, 5)
    await acknowledge(js, 10)
    assert await remove_old_events(js, durables=[DURABLE], before=between) == 5
    assert await left(js) == [6, 7, 8, 9, 10]


async def test_what_is_not_handled_stays(js: JetStreamContext) -> None:
    """However old an event is, it stays until it was acknowledged."""
    await journal(js, 10)
    await acknowledge(js, 4)
    later = datetime.now(UTC) + timedelta(days=1)
    assert await remove_old_events(js, durables=[DURABLE], before=later) == 4
    assert await left(js) == [5, 6, 7, 8, 9, 10]
    assert await remove_old_events(js, durables=[DURABLE], before=later) == 0


async def test_everything_may_go(js: JetStreamContext) -> None:
    """When all is old and handled, the journal is empty, and goes on working."""
    await journal(js, 3)
    await acknowledge(js, 3)
    later = datetime.now(UTC) + timedelta(days=1)
    assert await remove_old_events(js, durables=[DURABLE], before=later) == 3
    await journal(js, 1)
    assert await left(js) == [4]


async def test_gaps_do_not_matter(js: JetStreamContext) -> None:
    """Sequences that are missing already don't hide older ones."""
    await journal(js, 10)
    await acknowledge(js, 10)
    between = datetime.now(UTC)
    await journal(js, 2)
    for sequence in (3, 4, 5, 9, 10):
        await js.delete_msg(INGEST_STREAM, sequence)
    assert await remove_old_events(js, durables=[DURABLE], before=between) == 5
    assert await left(js) == [11, 12]


async def test_an_empty_journal(js: JetStreamContext) -> None:
    """Nothing to remove is no error."""
    assert await remove_old_events(js, durables=[DURABLE], before=datetime.now(UTC)) == 0


VOICE = Durable("voice", "ingest.voice.>")


async def test_an_event_stays_until_its_own_consumer_has_handled_it(js: JetStreamContext) -> None:
    """An event stays for the consumer whose it is, and none waits for a consumer without events."""
    await make(js, VOICE)
    later = datetime.now(UTC) + timedelta(days=1)
    await journal(js, 3)
    await acknowledge(js, 3)
    assert await remove_old_events(js, durables=[DURABLE, VOICE], before=later) == 3
    await js.publish("ingest.voice.call", b"4", timeout=60)
    await journal(js, 2)
    await acknowledge(js, 2)
    assert await remove_old_events(js, durables=[DURABLE, VOICE], before=later) == 0
    await acknowledge(js, 1, VOICE)
    assert await remove_old_events(js, durables=[DURABLE, VOICE], before=later) == 3


async def test_an_event_that_is_handled_out_of_order_holds_back_the_rest(
    js: JetStreamContext,
) -> None:
    """What comes after an unacknowledged event stays with it."""
    await make(js, VOICE)
    for number in range(4):
        await js.publish("ingest.voice.call", str(number).encode(), timeout=60)
    subscription = await js.pull_subscribe_bind(VOICE.name, INGEST_STREAM)
    events = await subscription.fetch(4)
    for event in (events[0], events[2], events[3]):
        await event.ack_sync()
    await subscription.unsubscribe()
    later = datetime.now(UTC) + timedelta(days=1)
    assert await remove_old_events(js, durables=[DURABLE, VOICE], before=later) == 1


async def test_nothing_goes_before_every_consumer_is_there(js: JetStreamContext) -> None:
    """A consumer that was never made has handled nothing."""
    await journal(js, 1)
    await acknowledge(js, 1)
    later = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(NotFoundError):
        await remove_old_events(js, durables=[DURABLE, VOICE], before=later)
    assert await left(js) == [1]


async def test_a_durable_without_a_filter_keeps_its_place(js: JetStreamContext) -> None:
    """A consumer made by a program that had but one goes on where it was, with its own events."""
    old = Durable("old", "ingest.whatsapp.>")
    await js.add_consumer(
        INGEST_STREAM,
        ConsumerConfig(durable_name=old.name, ack_policy=AckPolicy.EXPLICIT, ack_wait=30),
    )
    await journal(js, 4)
    subscription = await js.pull_subscribe_bind(old.name, INGEST_STREAM)
    for event in await subscription.fetch(2):
        await event.ack_sync()
    # One that is under way at that moment is not forgotten.
    [held] = await subscription.fetch(1)
    await js.publish("ingest.voice.call", b"not mine", timeout=60)
    await make(js, old)
    await held.nak()
    await journal(js, 1)
    found = await subscription.fetch(3)
    assert sorted(event.metadata.sequence.stream for event in found) == [3, 4, 6]
    for event in found:
        await event.ack_sync()
    with pytest.raises(nats.errors.TimeoutError):
        await subscription.fetch(1, timeout=0.5)
    await subscription.unsubscribe()


async def test_old_acts_go(js: JetStreamContext) -> None:
    """What messaging did goes when it is old, whoever has read it or not."""
    await ensure_acts_stream(js, replicas=1, max_bytes=1024 * 1024)
    for number in range(5):
        await js.publish("acts.message.queued", str(number).encode(), timeout=60)
    between = datetime.now(UTC)
    await js.publish("acts.message.queued", b"5", timeout=60)
    assert await remove_old_acts(js, before=between) == 5
    assert (await js.stream_info(ACTS_STREAM)).state.first_seq == 6
    assert await remove_old_acts(js, before=between) == 0
