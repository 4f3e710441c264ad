"""Stored files over gRPC."""

import hashlib
import random

import grpc.aio
import pytest
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.messaging.ports.media import File
from services.messaging.store.database import Database
from tests.support.grpc_api import MemoryMediaStore, called, served


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
async def test_a_file_comes_in_parts(database: Database, size: int) -> None:
    """GetMedia streams a file of any size, far beyond what one message may hold."""
    content = random.Random(size).randbytes(size)
    media = MemoryMediaStore()
    stored = await media.put(File(content, "image/jpeg"))
    async with served(database, media=media) as server, called(server) as api:
        call = api.GetMedia(pb.GetMediaRequest(id=stored.id), timeout=60)
        parts = [part async for part in call]
    assert b"".join(part.data for part in parts) == content
    assert hashlib.sha256(content).hexdigest() == stored.id
    assert (parts[0].content_type, parts[0].size_bytes) == ("image/jpeg", size)
    assert max(len(part.data) for part in parts) <= 64 * 1024
    assert not any(part.content_type for part in parts[1:])


@pytest.mark.parametrize("id_", ["0" * 64, "../../etc/passwd", "\0", "x" * 100_000])
async def test_an_unknown_file_is_not_found(database: Database, id_: str) -> None:
    """Whatever is asked for, an id that isn't ours is NOT_FOUND."""
    async with served(database) as server, called(server) as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.GetMedia(pb.GetMediaRequest(id=id_), timeout=60).read()
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
