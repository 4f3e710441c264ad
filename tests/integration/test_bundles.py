"""Events that are committed as one message, and stand in the journal as messages of their own."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from services.common.journal import bundles as bundling
from services.common.journal.bundles import Bundles, bundled
from services.common.journal.entries import Entry
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError, put
from services.common.journal.streams import (
    INGEST_STREAM,
    INTAKE_STREAM,
    ensure_ingest_consumer,
    ensure_streams,
)
from services.messaging.consumers.ingest import DURABLE
from services.messaging.consumers.journaling import WebhookJournal
from services.messaging.consumers.left_bundles import LeftBundles
from tests.support.edge import journal_client, stored, until
from tests.support.nats import NatsServer

MANY = 40


@pytest.fixture
def unmoved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles stay where they are, as those of an edge that died."""
    monkeypatch.setattr(bundling, "_COMPANY_SECONDS", 3600)
    monkeypatch.setattr(bundling, "_CLOSE_SECONDS", 0)


def events(count: int = MANY, *, first: int = 0, data: bytes = b"data") -> list[JournalEvent]:
    return [
        JournalEvent(
            kind=EventKind.WHATSAPP_MESSAGE,
            key=f"message:{number}",
            source="/webhook/whatsapp/incoming",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            data=data,
            traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01",
        )
        for number in range(first, first + count)
    ]


async def publish(journal: JournalPublisher, some: Iterable[JournalEvent]) -> None:
    await asyncio.gather(*map(journal.publish, some))


async def bundles_left(client: Client) -> int:
    return (await client.jetstream().stream_info(INTAKE_STREAM)).state.messages


async def journaled(server: NatsServer) -> list[JournalEvent]:
    found = [JournalEvent.parse(m.headers, m.data) for m in await stored(server.url, moved=False)]
    return sorted(found, key=lambda event: int(event.key.partition(":")[2]))


async def test_events_of_a_bundle_are_each_one_message(nats_server: NatsServer) -> None:
    """They end up in the journal as if each had been published by itself, and no bundle stays."""
    some = [*events(500, data=b"\r\n\0\xff"), *events(500, first=500)]
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, bundles=Bundles(client))
        await publish(journal, some)
        await journal.close()
        assert await bundles_left(client) == 0
    assert await journaled(nats_server) == some
    messages = await stored(nats_server.url, moved=False)
    assert {message.subject for message in messages} == {"ingest.whatsapp.message"}
    assert (messages[0].headers or {})["Nats-Msg-Id"].startswith("message:")


async def test_a_few_events_are_never_bundled(nats_server: NatsServer, unmoved: None) -> None:
    """Who comes alone stands in the journal before it is acknowledged."""
    async with journal_client(nats_server.url) as client:
        bundles = Bundles(client)
        journal = JournalPublisher(client, bundles=bundles)
        await publish(journal, events(3))
        assert bundles.waiting == 0
        assert len(await stored(nats_server.url, moved=False)) == 3


async def test_what_an_edge_has_acknowledged_and_not_moved(
    nats_server: NatsServer, unmoved: None
) -> None:
    """Messaging finds it at its second look, and brings it to the journal once."""
    async with journal_client(nats_server.url) as client:
        bundles = Bundles(client)
        journal = JournalPublisher(client, bundles=bundles)
        await publish(journal, events())
        assert bundles.waiting == MANY
        assert await stored(nats_server.url, moved=False) == []
        await journal.close()
        left = LeftBundles(client)
        assert await left.look() == 0
        assert await left.look() == MANY
        assert await left.look() == 0
        assert await bundles_left(client) == 0
    assert await journaled(nats_server) == events()


async def test_a_bundle_that_was_moved_and_not_removed(nats_server: NatsServer) -> None:
    """Its events stay in the journal once, also when some of them came by themselves meanwhile."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)
        await publish(journal, events(30))
        bundle = bundled(event.entry() for event in events())
        for edge in ("intake.one", "intake.two"):
            assert (await put(client, Entry(edge, "", bundle), seconds=60)).sequence
        left = LeftBundles(client)
        await left.look()
        assert await left.look() == 2 * MANY
        assert await bundles_left(client) == 0
    assert await journaled(nats_server) == events()


async def test_an_edge_removes_none_but_its_own(nats_server: NatsServer, unmoved: None) -> None:
    """What another edge has bundled and not moved stays when one has moved all of its own."""
    async with journal_client(nats_server.url) as client, journal_client(nats_server.url) as second:
        slow = JournalPublisher(second, bundles=Bundles(second))
        await publish(slow, events())
        with pytest.MonkeyPatch.context() as quick:
            quick.setattr(bundling, "_COMPANY_SECONDS", 0)
            quick.setattr(bundling, "_CLOSE_SECONDS", 60)
            journal = JournalPublisher(client, bundles=Bundles(client))
            await publish(journal, events(first=100))
            await journal.close()
        assert await bundles_left(client) > 0
        assert await journaled(nats_server) == events(first=100)
        await slow.close()
        left = LeftBundles(client)
        await left.look()
        assert await left.look() == MANY
    assert len(await journaled(nats_server)) == 2 * MANY


@pytest.mark.parametrize("asked", [False, True])
async def test_a_broker_that_goes_before_a_bundle_is_moved(
    nats_server: NatsServer, asked: bool
) -> None:
    """The edge moves it soon when the broker is back, once; also when it was asked before it went,
    and its answer went with the connection."""
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(bundling, "_COMPANY_SECONDS", 0.5)
        async with journal_client(nats_server.url) as client:
            bundles = Bundles(client)
            journal = JournalPublisher(client, bundles=bundles)
            await publish(journal, events())
            if asked:
                nats_server.pause()
                await asyncio.sleep(1)
            nats_server.kill()
            await until(lambda: not client.is_connected)
            await asyncio.sleep(0.6)
            assert bundles.waiting == MANY
            nats_server.start()
            await until(lambda: not bundles.waiting, 7)
            await journal.close()
    assert await journaled(nats_server) == events()


async def test_a_full_journal(nats_server: NatsServer) -> None:
    """What was acknowledged waits for room; nothing more is acknowledged meanwhile."""
    async with journal_client(nats_server.url) as client:
        js = client.jetstream()
        await ensure_streams(js, replicas=1, max_bytes=1)
        bundles = Bundles(client)
        journal = JournalPublisher(client, bundles=bundles)
        await publish(journal, events())
        await until(lambda: not bundles.takes([event.entry() for event in events()]))
        with pytest.raises(JournalUnavailableError):
            await publish(journal, events(first=100))
        assert (await js.stream_info(INGEST_STREAM)).state.messages == 0
        await ensure_streams(js, replicas=1, max_bytes=10_000_000)
        await until(lambda: not bundles.waiting)
        await publish(journal, events(first=200))
        await journal.close()
    keys = {event.key for event in await journaled(nats_server)}
    assert keys >= {event.key for event in [*events(), *events(first=200)]}


async def test_a_mover_that_fails(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bundle is not taken away with the next ones: they are moved together."""
    fails = [RuntimeError("once")]
    bring = bundling.bring

    async def failing(client: Client, entries: Sequence[Entry]) -> None:
        if fails:
            raise fails.pop()
        await bring(client, entries)

    monkeypatch.setattr(bundling, "bring", failing)
    async with journal_client(nats_server.url) as client:
        bundles = Bundles(client)
        journal = JournalPublisher(client, bundles=bundles)
        await publish(journal, events())
        await until(lambda: not fails)
        await publish(journal, events(first=100))
        await until(lambda: not bundles.waiting)
        await journal.close()
        assert await bundles_left(client) == 0
    assert await journaled(nats_server) == [*events(), *events(first=100)]


async def test_a_bundle_refused_before_one_that_cannot_be_read(nats_server: NatsServer) -> None:
    """It is tried again at every look."""
    async with journal_client(nats_server.url) as client:
        js = client.jetstream()
        await ensure_streams(js, replicas=1, max_bytes=1)
        for bundle in (bundled(e.entry() for e in events()), b"\xff"):
            await put(client, Entry("intake.gone", "", bundle), seconds=60)
        left = LeftBundles(client)
        await left.look()
        assert await left.look() == 0
        await ensure_streams(js, replicas=1, max_bytes=10_000_000)
        assert await left.look() == MANY
    assert await journaled(nats_server) == events()


async def test_the_search_for_lost_webhooks_waits_for_bundles(nats_server: NatsServer) -> None:
    """What an edge has acknowledged and not moved isn't lost, and isn't journaled anew."""
    async with journal_client(nats_server.url) as client:
        js = client.jetstream()
        await ensure_ingest_consumer(
            js, durable=DURABLE.name, subjects=DURABLE.subjects, ack_wait_seconds=60, max_deliver=5
        )
        bundle = bundled(event.entry() for event in events())
        await put(client, Entry("intake.gone", "", bundle), seconds=60)
        journal = WebhookJournal(client, JournalPublisher(client), clock=lambda: datetime.now(UTC))
        caught_up = asyncio.create_task(journal.caught_up())
        await asyncio.sleep(2)
        assert not caught_up.done()
        await js.purge_stream(INTAKE_STREAM)
        assert await caught_up


async def test_events_that_would_be_too_large_together(
    nats_server: NatsServer, unmoved: None
) -> None:
    """They are committed as a batch, each as a message of its own at once."""
    some = events(data=b"x" * 40_000)
    async with journal_client(nats_server.url) as client:
        bundles = Bundles(client)
        await publish(JournalPublisher(client, bundles=bundles), some)
        assert bundles.waiting == 0
    assert await journaled(nats_server) == some


@pytest.mark.parametrize(
    "entry",
    [
        Entry("acts.message.queued", "Nats-Msg-Id: 1\r\n", b"x"),
        Entry("ingest.x\r\nPUB acts.message.queued 1", "", b"x"),
        Entry("ingest.whatsapp.message", "Nats-Msg-Id: é\r\n", b"x"),
        # NATS tells of such a message where the header says, by the right of who published it.
        Entry("ingest.whatsapp.message", "Nats-Trace-Dest: acts.message.queued\r\n", b"x"),
        Entry("ingest.whatsapp.message", "ce-id: 1\r\nno header\r\n", b"x"),
    ],
)
async def test_a_bundle_that_no_edge_of_ours_wrote(nats_server: NatsServer, entry: Entry) -> None:
    """With the edge's password nobody gets further than the edge does; what follows isn't held up,
    and what can't be read isn't thrown away."""
    async with journal_client(nats_server.url) as client:
        heard = await client.subscribe("acts.>")
        for bundle in (bundled([entry]), b"\xff", b"", bundled(e.entry() for e in events())):
            await put(client, Entry("intake.thief", "", bundle), seconds=60)
        left = LeftBundles(client)
        await left.look()
        assert await left.look() == MANY
        assert await left.look() == 0
        await client.flush()
        assert heard.pending_msgs == 0
        assert await bundles_left(client) == 3
    assert await journaled(nats_server) == events()
