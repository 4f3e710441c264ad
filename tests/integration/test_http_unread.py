"""Answers that nobody reads, on a real socket."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common import http_connection, joining_transport
from services.common.http_server import serving_http
from services.common.joining_transport import JoiningTransport
from tests.support.edge import until
from tests.support.raw_http import connected, exchange, statuses

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = REQUEST[:-2] + b"Connection: close\r\n\r\n"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


async def test_an_answer_that_nobody_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes nothing of an answer loses the connection; its sender is told and ends."""
    monkeypatch.setattr(joining_transport, "UNREAD_SECONDS", 0.3)
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()
            left = asyncio.ensure_future(receive())
            while not left.done():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
            assert left.result()["type"] == "http.disconnect"
            ended.set()

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(REQUEST)
        await asyncio.wait_for(ended.wait(), timeout=60)
        writer.transport.abort()


def open_files() -> int:
    """Of this process, which has both ends of its connections."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextlib.asynccontextmanager
async def far_away(port: int, request_: bytes) -> AsyncIterator[socket.socket]:
    """A client that has asked, for whom the system takes little of what isn't read."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
        one.send(request_)
        yield one


@contextlib.asynccontextmanager
async def unread(port: int, number: int) -> AsyncIterator[None]:
    """Connections on which an answer is asked for, the last, and not read."""
    async with contextlib.AsyncExitStack() as opened:
        for _ in range(number):
            await opened.enter_async_context(far_away(port, LAST.replace(b"/", b"/unread", 1)))
        yield


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    """An application that ends each answer once much of it has to wait for its reader."""
    made: dict[tuple[str, int], JoiningTransport] = {}

    class Recorded(JoiningTransport):
        def __init__(self, transport: asyncio.Transport) -> None:
            super().__init__(transport)
            made[transport.get_extra_info("peername")] = self

    monkeypatch.setattr(http_connection, "JoiningTransport", Recorded)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        assert scope["client"] is not None
        transport = made[scope["client"]]
        if scope["path"] == "/slow":
            await asyncio.sleep(0.3)
        await send({**HEAD, "headers": []})
        if scope["path"] == "/unread":
            while transport.get_write_buffer_size() < 40_000:
                piece = {"type": "http.response.body", "body": b"x" * 4096, "more_body": True}
                await send(piece)
                await asyncio.sleep(0.001)
        await send({"type": "http.response.body"})

    return app


async def test_an_end_that_nobody_reads_comes(
    lasting: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves a little of the last answer unread keeps no connection for it."""
    monkeypatch.setattr(joining_transport, "UNREAD_SECONDS", 0.5)
    async with serving_http(lasting, host="127.0.0.1", port=0) as port:
        before = open_files()
        async with unread(port, 3):
            await until(lambda: open_files() == before + 6)
            await until(lambda: open_files() == before + 3, 10)


async def test_unread_answers_make_room(lasting: ASGIApp) -> None:
    """Connections whose last answers nobody reads keep nobody out."""
    async with serving_http(lasting, host="127.0.0.1", port=0, max_connections=10) as port:
        before = open_files()
        async with unread(port, 10):
            await asyncio.sleep(1)
            for _ in range(20):
                assert statuses(await exchange(port, LAST)) == [200]
            assert open_files() < before + 10 + 12


async def test_who_has_said_all_and_reads_nothing_is_ended(
    lasting: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends no more (FIN) while its last request is answered keeps no connection."""
    monkeypatch.setattr(joining_transport, "UNREAD_SECONDS", 0.5)
    asked = REQUEST.replace(b"/", b"/unread", 1) + REQUEST.replace(b"/", b"/slow", 1)
    async with serving_http(lasting, host="127.0.0.1", port=0) as port:
        before = open_files()
        async with far_away(port, asked) as client:
            client.shutdown(socket.SHUT_WR)
            await until(lambda: open_files() == before + 2)
            await until(lambda: open_files() == before + 1, 10)


@pytest.mark.parametrize("request_", [REQUEST, LAST])
async def test_who_reads_slowly_gets_it_all(
    monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """Though it takes many times as long as whoever reads nothing is given."""
    monkeypatch.setattr(joining_transport, "UNREAD_SECONDS", 0.5)
    whole = 2_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({**HEAD, "headers": [(b"content-length", b"%d" % whole)]})
            await send({"type": "http.response.body", "body": b"x" * whole})

    async with (
        serving_http(app, host="127.0.0.1", port=0) as port,
        far_away(port, request_) as client,
    ):
        taken = 0
        while taken < whole:
            part = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(client, 20_000), timeout=10
            )
            assert part, taken
            taken += len(part)
            await asyncio.sleep(len(part) / 500_000)


async def test_nothing_is_kept_of_a_connection_that_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by a timer nor until the garbage collector comes."""
    made: list[weakref.ref[JoiningTransport]] = []

    class Recorded(JoiningTransport):
        def __init__(self, transport: asyncio.Transport) -> None:
            super().__init__(transport)
            made.append(weakref.ref(self))

    monkeypatch.setattr(http_connection, "JoiningTransport", Recorded)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(HEAD)
            await send({"type": "http.response.body", "body": b"body"})

    gc.collect()
    gc.disable()
    try:
        async with (
            serving_http(app, host="127.0.0.1", port=0, max_connections=5) as port,
            contextlib.AsyncExitStack() as opened,
        ):
            for _ in range(10):
                async with connected(port) as leaving:
                    assert await leaving.ask(REQUEST) == 200
                making_room = await opened.enter_async_context(connected(port))
                assert await making_room.ask(REQUEST) == 200
            await until(lambda: sum(one() is not None for one in made) <= 5, 10)
    finally:
        gc.enable()
