"""Heads of requests without an end, in size or in time."""

import asyncio

import pytest

from services.common import http_connection
from tests.support.attacks import Attacks
from tests.support.edge import FORM, INCOMING, Edge
from tests.support.raw_http import connected, exchange, head, signed, statuses

LINE = b"POST " + INCOMING.encode() + b" HTTP/1.1"
CHUNKED = head(
    LINE,
    (b"Host", b"x"),
    (b"Content-Type", FORM.encode()),
    (b"X-Twilio-Signature", b"A" * 28),
    (b"Transfer-Encoding", b"chunked"),
)
ENDLESS = {
    "one header": (LINE + b"\r\nA: ", b"x" * 65536),
    "headers": (LINE + b"\r\n", b"A: x\r\n" * 10_000),
    "an address": (b"POST /", b"x" * 65536),
    "a method": (b"", b"X" * 65536),
    "a chunk's extension": (CHUNKED + b"1;", b"x" * 65536),
    "trailers": (CHUNKED + b"0\r\n", b"A: x\r\n" * 10_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_head_has_an_end(edge: Edge, attacks: Attacks, kind: str) -> None:
    """Of a head that never ends little is taken; the next connection is served."""
    first, again = ENDLESS[kind]
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    taken = 0
    try:
        writer.write(first)
        async with asyncio.timeout(60):
            while taken < 100_000_000:
                writer.write(again)
                await writer.drain()
                taken += len(again)
    except OSError:
        pass
    finally:
        writer.transport.abort()
    # Beside what was read there is what the sockets hold.
    attacks.count("endless heads", through=taken >= 20_000_000, evidence=taken)
    async with connected(edge.port) as connection:
        assert await connection.ask(signed("SMgood").encoded()) == 200


async def test_a_head_comes_soon_or_not_at_all(
    edge: Edge, attacks: Attacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that send nothing, half a head, or after an answer half a body, are ended."""
    monkeypatch.setattr(http_connection, "_HEAD_SECONDS", 0.5)
    begun = [b"", b"P", LINE + b"\r\nHost: x\r\n", head(LINE, (b"Content-Length", b"10")) + b"x"]
    slow = [asyncio.create_task(exchange(edge.port, piece)) for piece in begun * 25]
    async with connected(edge.port) as connection:
        for number in range(10):
            assert await connection.ask(signed(f"SM{number}").encoded()) == 200
    for answer in await asyncio.gather(*slow):
        attacks.count("slow heads", through=statuses(answer) not in ([], [400]))
