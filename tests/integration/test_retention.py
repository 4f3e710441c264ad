"""Old events leave the journal, on a real broker."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.common.journal.streams import INGEST_STREAM, ensure_ingest_consumer, ensure_streams
from services.messaging.consumers.retention import remove_old_events
from tests.support.edge import journal_client
from tests.support.nats import NatsServer

DURABLE = "messaging"


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal_client(nats_server.url) as client:
        yield client


@pytest.fixture
async def js(client: Client) -> JetStreamContext:
    js = client.jetstream()
    await ensure_streams(js, replicas=1, max_bytes=1024 * 1024)
    await ensure_ingest_consumer(js, durable=DURABLE, ack_wait_seconds=30, max_deliver=-1)
    return js


async def journal(js: JetStreamContext, count: int) -> None:
    for number in range(count):
        await js.publish("ingest.whatsapp.message", str(number).encode())


async def acknowledge(js: JetStreamContext, count: int) -> None:
    subscription = await js.pull_subscribe_bind(DURABLE, INGEST_STREAM)
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
    assert await remove_old_events(js, durable=DURABLE, before=between) == 5
    assert await left(js) == [6, 7, 8, 9, 10]


async def test_what_is_not_handled_stays(js: JetStreamContext) -> None:
    """However old an event is, it stays until it was acknowledged."""
    await journal(js, 10)
    await acknowledge(js, 4)
    later = datetime.now(UTC) + timedelta(days=1)
    assert await remove_old_events(js, durable=DURABLE, before=later) == 4
    assert await left(js) == [5, 6, 7, 8, 9, 10]
    assert await remove_old_events(js, durable=DURABLE, before=later) == 0


async def test_everything_may_go(js: JetStreamContext) -> None:
    """When all is old and handled, the journal is empty, and goes on working."""
    await journal(js, 3)
    await acknowledge(js, 3)
    later = datetime.now(UTC) + timedelta(days=1)
    assert await remove_old_events(js, durable=DURABLE, before=later) == 3
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
    assert await remove_old_events(js, durable=DURABLE, before=between) == 5
    assert await left(js) == [11, 12]


async def test_an_empty_journal(js: JetStreamContext) -> None:
    """Nothing to remove is no error."""
    assert await remove_old_events(js, durable=DURABLE, before=datetime.now(UTC)) == 0
