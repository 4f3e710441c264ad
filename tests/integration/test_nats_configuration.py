"""`deploy/nats` on a real server: what each user of NATS may do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import ServiceUnavailableError

from services.common.audio import AudioBucket, BucketConfig
from services.common.journal.bundles import Bundles
from services.common.journal.condition import jetstream_condition
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import INGEST_STREAM, connect, ensure_streams
from services.common.tracing import new_traceparent
from services.health.heard import Heard
from services.health.jetstream import nats_probe
from tests.support.nats_deployed import DeployedNats

SERVICES = ("webhook", "messaging", "health")
AUDIO_ID = "0" * 64


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[DeployedNats]:
    server = DeployedNats(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def connected(server: DeployedNats, user: str) -> AsyncIterator[Client]:
    async def closed() -> None:
        """It ends with the test."""

    client = await connect(server.url_of(user), name=f"switchboard-{user}", on_closed=closed)
    try:
        yield client
    finally:
        await client.close()


def event(sid: str) -> JournalEvent:
    return JournalEvent(
        kind=EventKind.WHATSAPP_MESSAGE,
        key=sid,
        source="twilio",
        time=datetime.now(UTC),
        data=b"x",
        traceparent=new_traceparent(),
    )


async def test_storage_that_files_fill_is_said_before_it_is_full(tmp_path: Path) -> None:
    """The server tells nobody how much it may store, so health has to be told."""
    server = DeployedNats(tmp_path / "nats", storage="40MB")
    server.start()
    try:
        async with connected(server, "messaging") as owner, connected(server, "health") as asker:
            js = owner.jetstream()
            await js.add_stream(name="INGEST", subjects=["ingest.>"], max_bytes=1_000_000)
            ask = nats_probe(asker, Heard(), storage_max_bytes=40 * 1024**2)
            assert (await ask())["nats"].status == "ok"
            files = await js.create_object_store("MEDIA")
            said: set[str] = set()
            for number in range(8):
                await files.put(f"{number}", bytes(5_000_000))
                said.add((await ask())["nats"].reason)
            await files.put("8", bytes(1_500_000))
            with pytest.raises(ServiceUnavailableError):
                await files.put("9", bytes(5_000_000))
            assert said == {"", "the storage is 83% full", "the storage is 95% full"}
            await js.publish("ingest.whatsapp.message", b"its room is reserved")
    finally:
        server.stop()


async def test_each_service_can_do_its_work(deployed: DeployedNats) -> None:
    """The edge makes the journal, adds events alone and in batches and reads speech; health sees
    the streams; messaging reads what the edge wrote."""
    async with contextlib.AsyncExitStack() as closing:
        webhook, messaging, health = [
            await closing.enter_async_context(connected(deployed, user)) for user in SERVICES
        ]
        await ensure_streams(webhook.jetstream(), replicas=1, max_bytes=10 * 1024**3, owner=False)
        await ensure_streams(messaging.jetstream(), replicas=1, max_bytes=10 * 1024**3)
        # One that was told otherwise takes the journal as it is.
        await ensure_streams(webhook.jetstream(), replicas=1, max_bytes=1024**3, owner=False)
        publisher = JournalPublisher(webhook, bundles=Bundles(webhook))
        await asyncio.gather(*(publisher.publish(event(f"SM{n}")) for n in range(40)))
        await publisher.publish(event("SM40"))
        await publisher.close()
        writing = AudioBucket(messaging, config=BucketConfig(timedelta(days=1), 1))
        assert await AudioBucket(webhook).get(AUDIO_ID) is None
        await writing.put(AUDIO_ID, b"speech" * 50_000)
        assert await AudioBucket(webhook).get(AUDIO_ID) == b"speech" * 50_000
        condition = await jetstream_condition(health)
        messages = {stream.name: stream.messages for stream in condition.streams}
        assert messages["INGEST"] == 41
        # It was there, and the edge has taken it away again.
        assert messages["INTAKE"] == 0
        assert (await messaging.jetstream().stream_info("INTAKE")).state.last_seq > 0
        read = await messaging.jetstream().get_last_msg(INGEST_STREAM, "ingest.whatsapp.message")
        assert (read.headers or {})["ce-id"].startswith("SM")


async def test_a_stolen_password_of_the_edge_or_of_health(deployed: DeployedNats) -> None:
    """With the edge's nobody reads, changes or empties the journal or hears others' answers; with
    health's nobody writes either."""
    async with contextlib.AsyncExitStack() as closing:
        webhook, messaging, health = [
            await closing.enter_async_context(connected(deployed, user)) for user in SERVICES
        ]
        js = messaging.jetstream()
        await ensure_streams(js, replicas=1, max_bytes=1024**2)
        await js.publish("ingest.whatsapp.message", b"x", timeout=60)
        stolen = webhook.jetstream(timeout=0.3)
        outcomes = await asyncio.gather(
            stolen.get_msg(INGEST_STREAM, 1),
            stolen.get_msg("INTAKE", 1),
            stolen.pull_subscribe("intake.>", stream="INTAKE"),
            stolen.update_stream((await js.stream_info(INGEST_STREAM)).config),
            stolen.purge_stream(INGEST_STREAM),
            stolen.delete_stream(INGEST_STREAM),
            stolen.pull_subscribe("ingest.>", stream=INGEST_STREAM),
            stolen.publish("acts.message.queued", b"x"),
            health.jetstream(timeout=0.3).publish("ingest.whatsapp.message", b"x"),
            health.jetstream(timeout=0.3).get_msg(INGEST_STREAM, 1),
            return_exceptions=True,
        )
        assert [type(one) for one in outcomes] == [nats.errors.TimeoutError] * len(outcomes)
        heard = await webhook.subscribe("_INBOX.>")
        own = await webhook.subscribe("_INBOX.switchboard-messaging.>")
        everything = await webhook.subscribe(">")
        await js.account_info()
        await js.publish("ingest.whatsapp.message", b"y", timeout=60)
        await webhook.flush()
        for subscription in (heard, own, everything):
            with contextlib.suppress(nats.errors.Error):
                assert subscription.pending_msgs == 0
        assert (await js.stream_info(INGEST_STREAM)).state.messages == 2


async def test_nobody_enters_without_a_password(deployed: DeployedNats) -> None:
    """No user, or a wrong password, is refused at the door."""
    for url in (deployed.url, deployed.url_of("messaging", "guess")):
        client = Client()
        with pytest.raises(nats.errors.Error):
            await client.connect(url, allow_reconnect=False, error_cb=_ignore)
        await client.close()


async def _ignore(_: Exception) -> None:
    """It is raised as well."""
