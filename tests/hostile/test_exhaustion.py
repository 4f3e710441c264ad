"""Memory, connections and logs of a real edge under floods: bounded, and others are served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from services.common.http_server import serving_http
from tests.support.api import GRPC_TOKEN, KEY
from tests.support.attacks import Attacks
from tests.support.edge import FORM, INCOMING, PUBLIC_HOST, TOKEN, until
from tests.support.edge_process import EdgeProcess
from tests.support.nats import NatsServer
from tests.support.raw_http import connected, exchange, head, signed, statuses

LINE = b"POST " + INCOMING.encode() + b" HTTP/1.1"
SIGNED = ((b"Content-Type", FORM.encode()), (b"X-Twilio-Signature", b"A" * 28))
MOST = 100
BODY = (b"Content-Length", b"65536")
# What each of many connections sends before it falls silent.
HELD = {
    "idle connections": b"",
    "heads that never end": head(LINE, (b"Host", b"x"), (b"A", b"x" * 60_000))[:-2],
    "bodies that never end": head(LINE, *SIGNED, (b"A", b"x" * 60_000), BODY) + b"x" * 65_000,
    # By itself each of these has megabytes of Python's objects.
    "tiny headers": LINE + b"\r\n" + b"a:\r\n" * 15_000,
    "tiny headers and a body": head(LINE, *SIGNED, BODY)[:-2] + b"a:\r\n" * 12_000 + b"\r\nx=y",
    "parameters": head(LINE, *SIGNED, BODY) + b"a&" * 32_000,
}
# Each by itself would be worth a line.
CLOSE = (b"Connection", b"close")
UPGRADE = (b"Connection", b"close, Upgrade"), (b"Upgrade", b"h2c")
BAD = {
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
    "upgrades": head(b"GET / HTTP/1.1", *UPGRADE),
    "no signature": head(LINE, CLOSE),
    "forged": head(LINE, *SIGNED, CLOSE),
    "no key": head(b"GET /api/whatsapp/messages HTTP/1.1", CLOSE),
    "a bad key": head(b"GET /api/calls HTTP/1.1", (b"X-API-Key", b"x"), CLOSE),
    "no address": head(b"GET /api/nothing HTTP/1.1", CLOSE),
    "a length of many digits": head(LINE, *SIGNED, (b"Content-Length", b"0" * 5000), CLOSE),
    "tiny headers": HELD["tiny headers"] + b"\r\n",
    "requests before half a one": head(LINE, *SIGNED) * 2
    + head(LINE, *SIGNED, (b"Transfer-Encoding", b"chunked"))
    + b"no size\r\n",
}


@pytest.fixture
def process(nats_server: NatsServer, tmp_path: Path) -> Iterator[EdgeProcess]:
    """An edge that holds few connections."""
    variables = {
        "PUBLIC_HOST": PUBLIC_HOST,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "NATS_URL": nats_server.url,
        "JOURNAL_MAX_BYTES": "50000000",
        "SPILL_PATH": str(tmp_path / "spill.db"),
        "WEBHOOK_MAX_CONNECTIONS": str(MOST),
        "API_KEYS": f"crm:{KEY}",
        "GRPC_TOKEN": GRPC_TOKEN,
    }
    process = EdgeProcess(variables, tmp_path / "log")
    try:
        process.ready()
        process.connected()
        yield process
    finally:
        process.kill()


@contextlib.asynccontextmanager
async def flooded(port: int, payload: bytes, number: int) -> AsyncIterator[None]:
    """Many connections that have sent the same and wait."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    try:
        for _, writer in opened:
            writer.write(payload)
        yield
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def test_a_flood_of_connections_is_bounded(process: EdgeProcess, attacks: Attacks) -> None:
    """Of four times as many as may be held little is kept, and a webhook is answered at once."""
    for kind, payload in HELD.items():
        before = process.memory()
        async with flooded(process.port, payload, 4 * MOST):
            for number in range(5):
                async with connected(process.port) as connection:
                    status = await connection.ask(signed(f"SM{kind}{number}").encoded())
                assert status == 200, (kind, number)
            grown = process.memory() - before
            held = process.open_files()
        # A head and a body of 64 KiB each, and as much again while they are read.
        through = grown > MOST * 300 * 1024 or held > MOST + 50
        for _ in range(4 * MOST):
            attacks.count(f"held: {kind}", through=through, evidence=(grown, held))
        await until(lambda: process.open_files() < 50)


async def test_who_waits_for_an_answer_makes_no_room(attacks: Attacks) -> None:
    """For newcomers those are given up who haven't asked yet, never a request that is whole."""
    answer = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await receive()
            await answer.wait()
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body"})

    async with (
        serving_http(app, host="127.0.0.1", port=0, max_connections=10) as port,
        contextlib.AsyncExitStack() as opened,
    ):
        whole = [await opened.enter_async_context(connected(port)) for _ in range(9)]
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        asking = [asyncio.create_task(one.ask(request)) for one in whole]
        await opened.enter_async_context(flooded(port, b"GET / HT", 100))
        answer.set()
        for status in await asyncio.gather(*asking):
            attacks.count("held: room for others", through=status != 200)


async def test_refusals_do_not_fill_the_log(process: EdgeProcess, attacks: Attacks) -> None:
    """Requests that a stranger makes by the hundred are a few lines, however they are bad."""
    before = len(process.log.read_bytes().splitlines())
    for kind, request in BAD.items():
        for _ in range(30):
            answer = statuses(await exchange(process.port, request))
            attacks.count(f"log floods: {kind}", through=500 in answer, evidence=answer)
    written = process.log.read_bytes().splitlines()[before:]
    assert len(written) <= 3 * len(BAD), written
    assert b"Traceback" not in b"".join(written)
