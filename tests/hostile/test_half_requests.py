"""Who reads too slowly, or goes away in the middle: it costs nobody else, and nothing is done."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.api import KEY, OTHER_KEY, Api, PretendMessaging, message, running_api, served
from tests.support.attacks import Attacks
from tests.support.edge import Edge, stored
from tests.support.nats import NatsServer
from tests.support.raw_http import connected, head, signed

HELD = 4


@pytest.fixture
def messaging() -> PretendMessaging:
    """Its file has no end."""
    messaging = PretendMessaging()
    messaging.file = ("image/png", [b"x" * 65536] * 1000)
    return messaging


@pytest.fixture
async def api(messaging: PretendMessaging) -> AsyncIterator[Api]:
    """An API of which a key may hold little."""
    async with (
        served(messaging) as address,
        running_api(address, held_per_key=HELD, heartbeat_seconds=0.05) as api,
    ):
        yield api


def port_of(api: Api) -> int:
    port = api.http.base_url.port
    assert port is not None
    return port


def asking(line: bytes, key: str = KEY, *more: tuple[bytes, bytes]) -> bytes:
    return head(line, (b"Host", b"x"), (b"X-API-Key", key.encode()), *more)


@contextlib.asynccontextmanager
async def unread(port: int, path: bytes, key: str = KEY) -> AsyncIterator[int]:
    """An answer of which only the head is read; yields its status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(asking(b"GET " + path + b" HTTP/1.1", key))
        answer = await reader.readuntil(b"\r\n\r\n")
        yield int(answer.split(b" ", 2)[1])
    finally:
        writer.transport.abort()


async def test_who_reads_slowly_takes_only_of_its_own(api: Api, attacks: Attacks) -> None:
    """Downloads and streams that nobody reads are bounded for a key; another key is served."""
    port = port_of(api)
    wanted = (b"/api/whatsapp/media/f-1", b"/api/whatsapp/stream")
    async with contextlib.AsyncExitStack() as opened:
        for number in range(HELD):
            slow = unread(port, wanted[number % 2])
            assert await opened.enter_async_context(slow) == 200
        for path in wanted * 10:
            async with unread(port, path) as status:
                attacks.count("slow readers", through=status != 429, evidence=(path, status))
        for path in wanted:
            async with unread(port, path, OTHER_KEY) as status:
                assert status == 200
    # Whoever goes away frees the place.
    async with asyncio.timeout(60):
        status = 429
        while status == 429:
            async with unread(port, wanted[0]) as status:
                pass


async def test_downloads_are_half_of_what_a_key_may_hold(api: Api, attacks: Attacks) -> None:
    """No key has all the files that messaging can read at once; its streams aren't concerned."""
    port = port_of(api)
    file, stream = b"/api/whatsapp/media/f-1", b"/api/whatsapp/stream"
    async with contextlib.AsyncExitStack() as opened:
        for number in range(HELD):
            status = await opened.enter_async_context(unread(port, file))
            through = status != (200 if number < HELD // 2 else 429)
            attacks.count("downloads of one key", through=through, evidence=(number, status))
        assert await opened.enter_async_context(unread(port, stream)) == 200
        assert await opened.enter_async_context(unread(port, file, OTHER_KEY)) == 200


async def test_half_a_request_sends_nothing(
    api: Api, messaging: PretendMessaging, attacks: Attacks
) -> None:
    """A send whose body breaks off isn't made, even where what came could be read by itself."""
    body = json.dumps({"to": message().contact_address, "body": "Hello"}).encode()
    line = b"POST /api/whatsapp/send HTTP/1.1"
    kind = (b"Content-Type", b"application/json")
    for more in (1, 1000):
        length = (b"Content-Length", b"%d" % (len(body) + more))
        for ending in (b"", b" ", b"\n"):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
            writer.write(asking(line, KEY, kind, length) + body + ending * (more - 1))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            # A request that is whole, later than the half one.
            await api.http.get("/api/whatsapp/status")
            through = any("Send" in type(one).__name__ for one in messaging.requests)
            attacks.count("half requests: sends", through=through)


async def test_half_a_webhook_is_none(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """A webhook that breaks off isn't journaled, wherever it does."""
    whole = signed("SMhalf").encoded()
    for at in range(1, len(whole), 7):
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(whole[:at])
        writer.close()
        await writer.wait_closed()
    async with connected(edge.port) as connection:
        assert await connection.ask(signed("SMwhole").encoded()) == 200
    found = await stored(nats_server.url)
    for _ in range(1, len(whole), 7):
        attacks.count("half requests: webhooks", through=len(found) != 1)
