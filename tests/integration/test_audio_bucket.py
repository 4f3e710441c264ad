"""The store of rendered speech, on a real NATS."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.aio.client import Client

from services.common.audio import BUCKET, AudioBucket, BucketConfig
from services.common.errors import UnavailableError
from tests.support.nats import NatsServer

CONFIG = BucketConfig(ttl=timedelta(days=30), replicas=1)
ID = hashlib.sha256(b"Hello").hexdigest()


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


@pytest.mark.parametrize("size", [0, 1, 20_000, 128 * 1024, 300_000])
async def test_what_is_put_is_got(client: Client, size: int) -> None:
    """Whatever its size, a file comes back as it was, to a reader of its own too."""
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    writer, reader = AudioBucket(client, config=CONFIG), AudioBucket(client)
    assert not await writer.has(ID)
    await writer.put(ID, content)
    await writer.put(ID, content)
    assert await writer.has(ID)
    assert await reader.get(ID) == content


async def test_before_anything_was_written_there_is_nothing(client: Client) -> None:
    """A reader doesn't create the bucket, and sees what a writer does afterwards."""
    reader = AudioBucket(client)
    assert await reader.get(ID) is None
    assert not await reader.has(ID)
    await AudioBucket(client, config=CONFIG).put(ID, b"mp3")
    assert await reader.get(ID) == b"mp3"


@pytest.mark.parametrize("name", ["", "..", "a" * 63, "A" * 64, "a" * 64 + "\n", "*", "é" * 64])
async def test_what_is_no_id_names_nothing(client: Client, name: str) -> None:
    """It is not found, and nothing can be stored under it."""
    bucket = AudioBucket(client, config=CONFIG)
    assert await bucket.get(name) is None
    with pytest.raises(ValueError, match="64 hexadecimal"):
        await bucket.put(name, b"mp3")


async def test_a_file_that_soon_expires_is_stored_anew(client: Client) -> None:
    """In the last quarter of its life it counts as gone, and putting it gives it a new one."""
    bucket = AudioBucket(client, config=CONFIG)
    await bucket.put(ID, b"mp3")
    store = await client.jetstream().object_store(BUCKET)
    first = await store.get_info(ID)
    # Its time is in its own record, so an old file can be made at once.
    old = (datetime.now(UTC) - timedelta(days=23)).isoformat()
    record = json.dumps(first.as_dict() | {"mtime": old}).encode()
    name = base64.urlsafe_b64encode(ID.encode()).decode()
    await client.jetstream().publish(
        f"$O.{BUCKET}.M.{name}", record, headers={"Nats-Rollup": "sub"}
    )
    assert not await bucket.has(ID)
    assert await bucket.get(ID) == b"mp3"
    await bucket.put(ID, b"mp3")
    assert await bucket.has(ID)
    assert (await store.get_info(ID)).nuid != first.nuid


async def test_a_file_whose_content_is_gone_is_not_there(client: Client) -> None:
    """What expired or was purged in part is answered at once, not waited for."""
    bucket = AudioBucket(client, config=CONFIG)
    await bucket.put(ID, b"x" * 300_000)
    store = await client.jetstream().object_store(BUCKET)
    info = await store.get_info(ID)
    await client.jetstream().purge_stream(f"OBJ_{BUCKET}", subject=f"$O.{BUCKET}.C.{info.nuid}")
    assert await bucket.get(ID) is None


async def test_the_age_limit_follows_the_setting(client: Client) -> None:
    """A bucket made with another limit gets the present one."""
    await AudioBucket(client, config=CONFIG).put(ID, b"mp3")
    await AudioBucket(client, config=BucketConfig(timedelta(days=2), 1)).has(ID)
    info = await client.jetstream().stream_info(f"OBJ_{BUCKET}")
    assert info.config.max_age == timedelta(days=2).total_seconds()


async def test_without_a_broker_it_says_so(client: Client, nats_server: NatsServer) -> None:
    """A broker that is frozen or gone is an error that may be retried, in bounded time."""
    bucket = AudioBucket(client, config=CONFIG)
    impatient = AudioBucket(client, config=CONFIG, timeout_seconds=0.3)
    await bucket.put(ID, b"mp3")
    nats_server.pause()
    with pytest.raises(UnavailableError):
        await impatient.get(ID)
    nats_server.resume()
    assert await bucket.get(ID) == b"mp3"
    await client.close()
    with pytest.raises(UnavailableError):
        await bucket.put(ID, b"mp3")
