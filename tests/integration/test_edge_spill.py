"""The edge while NATS is away: nothing acknowledged is lost, nothing comes twice."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.common.journal.events import JournalEvent
from services.webhook.spill import Spill, SpillUnavailableError
from tests.support.edge import INCOMING, Edge, journal_client, message, running_edge, stored, until
from tests.support.nats import NatsServer


async def journaled(server: NatsServer) -> list[str]:
    return [JournalEvent.parse(m.headers, m.data).key for m in await stored(server.url)]


@pytest.fixture
async def edge(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Edge]:
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db", timeout_seconds=0.5) as edge,
    ):
        forwarder = asyncio.create_task(edge.spill.forward(edge.journal, retry_seconds=0.1))
        yield edge
        forwarder.cancel()
        await asyncio.gather(forwarder, return_exceptions=True)


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (NatsServer.stop, NatsServer.start),
        (NatsServer.kill, NatsServer.start),
        (NatsServer.pause, NatsServer.resume),
    ],
    ids=["stopped", "killed", "frozen"],
)
async def test_webhooks_while_the_broker_goes_and_comes(
    edge: Edge,
    nats_server: NatsServer,
    away: Callable[[NatsServer], None],
    back: Callable[[NatsServer], None],
) -> None:
    """Every webhook is answered 200 throughout and stands in the journal exactly once."""
    sent = 0
    statuses: list[int] = []
    stop = asyncio.Event()

    async def sender() -> None:
        nonlocal sent
        while not stop.is_set():
            number, sent = sent, sent + 1
            statuses.append((await edge.post(INCOMING, message(f"SM{number}"))).status_code)

    senders = [asyncio.create_task(sender()) for _ in range(8)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(away, nats_server)
    await until(lambda: edge.spill.events > 20)
    await asyncio.to_thread(back, nats_server)
    await until(lambda: not edge.spill.events)
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*senders)
    await until(lambda: not edge.spill.events)
    assert set(statuses) == {200}
    assert edge.count("spilled") > 20
    assert sorted(await journaled(nats_server)) == sorted(f"message:SM{n}" for n in range(sent))


async def test_the_same_webhook_a_hundred_times_spills_once(
    edge: Edge, nats_server: NatsServer
) -> None:
    """Repetitions take no room on the disk."""
    nats_server.stop()
    responses = await asyncio.gather(*(edge.post(INCOMING, message("SM1")) for _ in range(100)))
    assert {response.status_code for response in responses} == {200}
    assert edge.spill.events == 1
    nats_server.start()
    await until(lambda: not edge.spill.events)
    assert edge.spill.bytes == 0
    assert await journaled(nats_server) == ["message:SM1"]


async def test_spilled_events_arrive_in_order(edge: Edge, nats_server: NatsServer) -> None:
    """The forwarder keeps the order in which the events came."""
    nats_server.stop()
    for n in range(300):
        assert (await edge.post(INCOMING, message(f"SM{n}"))).status_code == 200
    nats_server.start()
    await until(lambda: not edge.spill.events)
    assert await journaled(nats_server) == [f"message:SM{n}" for n in range(300)]


async def test_a_full_spill_is_503(nats_server: NatsServer, tmp_path: Path) -> None:
    """Without a disk to put it on, an event is refused, not acknowledged."""
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db", spill_max_bytes=5000) as edge,
    ):
        nats_server.stop()
        await until(lambda: not client.is_connected)
        answers = [await edge.post(INCOMING, message(f"SM{n}")) for n in range(30)]
        taken = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert taken
        assert refused
        assert len(taken) + len(refused) == 30
        assert len(taken) == edge.spill.events
        assert refused[0].headers["retry-after"] == "5"
        assert edge.count("unavailable") == len(refused)
        health = await edge.internal.get("/internal/health")
        assert (health.status_code, health.json()["journal_connected"]) == (200, False)


async def test_an_unwritable_disk_is_503_and_recovers(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """A failing write is never a 2xx; when the disk works again, so does the spill."""
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db") as edge,
    ):
        nats_server.stop()
        await until(lambda: not client.is_connected)
        await limit_pages(edge.spill, 1)
        assert (await edge.post(INCOMING, message("SM1", Body="x" * 9000))).status_code == 503
        assert (await edge.internal.get("/internal/health")).status_code == 503
        await limit_pages(edge.spill, 1_000_000)
        assert (await edge.post(INCOMING, message("SM1", Body="x" * 9000))).status_code == 200
        assert (await edge.internal.get("/internal/health")).json()["status"] == "degraded"


async def limit_pages(spill: Spill, pages: int) -> None:
    """Make SQLite meet a full disk, as near as one gets without a real one."""
    execute: Callable[[Callable[[], object]], Awaitable[object]] = spill._in_thread
    await execute(lambda: spill._database.execute(f"PRAGMA max_page_count = {pages}"))


async def test_health_tells_the_truth(edge: Edge, nats_server: NatsServer) -> None:
    """Ok, then degraded while events wait on the disk, then ok again."""

    async def status() -> str:
        return str((await edge.internal.get("/internal/health")).json()["status"])

    assert await status() == "ok"
    nats_server.stop()
    await edge.post(INCOMING, message("SM1"))
    assert await status() == "degraded"
    nats_server.start()
    await until(lambda: not edge.spill.events)
    assert await status() == "ok"


async def test_a_spill_belongs_to_one_process(tmp_path: Path) -> None:
    """A second edge on the same file is refused at start."""
    first = Spill(tmp_path / "spill.db", max_bytes=1000)
    await first.open()
    with pytest.raises(SpillUnavailableError, match="locked"):
        await Spill(tmp_path / "spill.db", max_bytes=1000).open()
    await first.close()


async def test_an_event_of_a_newer_release_stays(nats_server: NatsServer, tmp_path: Path) -> None:
    """After going back to an older release, what only the newer one knows waits for it."""
    path = tmp_path / "spill.db"
    async with journal_client(nats_server.url) as client:
        async with running_edge(client, path) as edge:
            nats_server.stop()
            await until(lambda: not client.is_connected)
            await edge.post(INCOMING, message("SM1"))
            await edge.post(INCOMING, message("SM2"))
        with sqlite3.connect(path) as database:
            database.execute("UPDATE spill SET kind = 'FROM_THE_FUTURE' WHERE key = 'message:SM1'")
        database.close()
        nats_server.start()
        async with running_edge(client, path) as edge:
            forwarder = asyncio.create_task(edge.spill.forward(edge.journal, retry_seconds=0.1))
            await until(lambda: edge.spill.events == 1)
            await asyncio.sleep(0.3)
            forwarder.cancel()
            await asyncio.gather(forwarder, return_exceptions=True)
            assert edge.spill.events == 1
    assert await journaled(nats_server) == ["message:SM2"]
