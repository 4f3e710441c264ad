"""The journal on three servers, as `deploy/nats/cluster.conf` has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.common.audio import AudioBucket, BucketConfig
from services.common.errors import UnavailableError
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError
from services.common.journal.streams import (
    INGEST_STREAM,
    connect,
    ensure_acts_stream,
    ensure_streams,
)
from services.common.tracing import new_traceparent
from services.messaging.ports.media import File
from services.messaging.store.database import Database
from services.messaging.store.files import ObjectMediaStore
from tests.support.edge import until
from tests.support.nats_deployed import NatsCluster
from tests.support.sending import now

T = TypeVar("T")

AUDIO_ID = "0" * 64


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    nodes = NatsCluster(tmp_path / "nats")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async def closed() -> None:
        """It ends with the test."""

    client = await connect(url, name="switchboard-messaging", on_closed=closed)
    try:
        yield client
    finally:
        await client.close()


async def settled(work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """What `work` returns, once a stream that was given copies has a leader again."""
    for _ in range(3):
        with contextlib.suppress(UnavailableError):
            return await work(*arguments)
    return await work(*arguments)


def port(client: Client) -> int | None:
    """Of the server that a client is connected to now."""
    return client.connected_url.port if client.is_connected and client.connected_url else None


def event(key: str) -> JournalEvent:
    return JournalEvent(
        kind=EventKind.WHATSAPP_MESSAGE,
        key=key,
        source="/webhook/whatsapp/incoming",
        time=datetime.now(UTC),
        data=b"data",
        traceparent=new_traceparent(),
    )


async def copies(js: JetStreamContext) -> dict[str | None, int | None]:
    return {info.config.name: info.config.num_replicas for info in await js.streams_info()}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_one_server_had_gets_its_copies(
    cluster: NatsCluster, database: Database
) -> None:
    """With JETSTREAM_REPLICAS raised from 1 to 3, every stream and bucket follows."""
    async with connected(cluster.url_of("messaging")) as client:
        js = client.jetstream()
        for replicas in (1, 3):
            await ensure_streams(js, replicas=replicas, max_bytes=1024**2)
            await ensure_acts_stream(js, replicas=replicas, max_bytes=1024**2)
            speech = AudioBucket(client, config=BucketConfig(timedelta(days=1), replicas))
            await settled(speech.put, AUDIO_ID, b"speech")
            files = ObjectMediaStore(database, client, clock=now, replicas=replicas)
            kept = await settled(files.put, File(b"a file", "image/jpeg"))
            assert set((await copies(js)).values()) == {replicas}
        assert len(await copies(js)) == 6
        assert await speech.get(AUDIO_ID) == b"speech"
        assert await files.read(kept.id) == File(b"a file", "image/jpeg")


async def test_the_way_to_a_server_that_nobody_named(cluster: NatsCluster) -> None:
    """A client told of one server finds the others when that one dies, and is let in."""
    first, *others = cluster.nodes.values()
    async with connected(first.url_of("messaging")) as client:
        first.kill()
        await until(lambda: port(client) in {node.port for node in others})
        await client.flush()


async def test_a_frozen_leader_is_waited_for_once(cluster: NatsCluster) -> None:
    """While a stream's leader stands still, and the rest of JetStream answers, one publish waits
    for it in vain; the next ones are refused at once until another server leads."""
    names = list(cluster.nodes)
    leader = next(name for name in names if name != cluster.meta_leader())
    ours = next(name for name in names if name != leader)
    async with connected(cluster.nodes[ours].url_of("messaging")) as client:
        js = client.jetstream()
        await ensure_streams(js, replicas=3, max_bytes=1024**2)
        await cluster.lead(client, INGEST_STREAM, leader)
        # On busy cores three servers may take a second to agree.
        journal = JournalPublisher(client, timeout_seconds=4)
        await journal.publish(event("first"))
        cluster.nodes[leader].pause()
        waited = 0
        async with asyncio.timeout(60):
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await journal.publish(event("second"))
                    break
                except JournalUnavailableError:
                    waited += asyncio.get_running_loop().time() - began > 2
                    await asyncio.sleep(0.02)
        await journal.close()
        # None where another led by then: on busy cores servers take each other for dead.
        assert waited <= 1
        assert (await js.stream_info(INGEST_STREAM)).state.messages == 2
