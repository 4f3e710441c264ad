"""Requests that are answered without a task for each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.common import http_direct
from services.common.http_direct import WholeRequest
from services.common.http_server import serving_http
from tests.support.edge import until

DIRECT = b"POST /direct HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"


class Direct:
    """Takes what is sent to `/direct`; what else comes, or is handed on, is answered by itself."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[WholeRequest] = asyncio.Queue()
        self.ended: list[str] = []

    def takes(self, scope: Scope) -> bool:
        """By its path."""
        return bool(scope["path"] == "/direct")

    def take(self, request: WholeRequest) -> None:
        """Leave it to the test."""
        self.taken.put_nowait(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the body."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ended.append("disconnected")
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.ended.append("answered")
        await PlainTextResponse(b"app:" + body)(scope, receive, send)


@contextlib.asynccontextmanager
async def connected(
    direct: Direct,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server."""
    async with serving_http(direct, host="127.0.0.1", port=0, taker=direct) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next answer."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


@pytest.mark.parametrize("pieces", [(DIRECT + b"abcd",), (DIRECT, b"abcd"), (DIRECT, b"a", b"bcd")])
async def test_a_request_is_taken_once_it_is_whole(pieces: tuple[bytes, ...]) -> None:
    """In however many pieces it comes; the connection is used again."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        for _ in range(2):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            request = await direct.taken.get()
            assert request.body == b"abcd"
            request.answer(HEAD, b"done")
            head, body = await answer(reader)
            assert (body, b"\r\ndate: " in head, b"connection" in head) == (b"done", True, False)
    assert direct.ended == []


async def test_a_body_that_takes_long_is_the_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can wait, and has a limit for that."""
    monkeypatch.setattr(http_direct, "_WHOLE_SECONDS", 0.01)
    direct = Direct()
    async with connected(direct) as (reader, writer):
        writer.write(DIRECT + b"ab")
        await asyncio.sleep(0.1)
        writer.write(b"cd")
        assert (await answer(reader))[1] == b"app:abcd"
        writer.write(DIRECT + b"efgh")
        (await direct.taken.get()).answer(HEAD, b"done")
        assert (await answer(reader))[1] == b"done"


async def test_a_body_that_has_to_be_asked_for_is_the_applications(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for the rest of a large one while nothing of it is read."""
    monkeypatch.setattr(http_direct, "_WHOLE_SECONDS", 60)
    direct = Direct()
    async with connected(direct) as (reader, writer):
        half = b"x" * 70_000
        writer.write(DIRECT.replace(b": 4", b": 140000") + half)
        await asyncio.sleep(0.1)
        writer.write(half)
        assert (await answer(reader))[1] == b"app:" + half + half


async def test_who_waits_to_be_asked_for_the_body_is_asked_at_once() -> None:
    """`Expect: 100-continue`."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        writer.write(DIRECT[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abcd")
        assert (await answer(reader))[1] == b"app:abcd"


async def test_what_is_handed_on_has_its_body() -> None:
    """And its answer goes where the request came from."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        writer.write(DIRECT + b"abcd")
        (await direct.taken.get()).hand_on(direct)
        assert (await answer(reader))[1] == b"app:abcd"


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    """Though a later one is for the application."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        other = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(DIRECT + b"1111" + DIRECT + b"2222" + other + DIRECT + b"33")
        for number in (b"1111", b"2222"):
            request = await direct.taken.get()
            assert (request.body, direct.taken.empty()) == (number, True)
            request.answer(HEAD, number)
            assert (await answer(reader))[1] == number
        assert (await answer(reader))[1] == b"app:"
        writer.write(b"33")
        assert (await answer(reader))[1] == b"app:3333"


async def test_who_leaves_before_the_answer_holds_up_nobody() -> None:
    """What was to be done with the request is done; nobody is told."""
    direct = Direct()
    async with connected(direct) as (_, writer):
        writer.write(DIRECT + b"abcd")
        request = await direct.taken.get()
        writer.close()
        await until(lambda: request._cycle.disconnected)
        request.answer(HEAD, b"done")
        writer.close()
    assert direct.ended == []


async def test_who_leaves_before_the_request_is_whole_is_noticed() -> None:
    """The application counts those."""
    direct = Direct()
    async with connected(direct) as (_, writer):
        writer.write(DIRECT + b"ab")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await until(lambda: direct.ended == ["disconnected"])


async def test_the_server_waits_for_what_it_has_taken() -> None:
    """An answer during shutdown is the connection's last."""
    direct = Direct()
    serving = contextlib.AsyncExitStack()
    port = await serving.enter_async_context(
        serving_http(direct, host="127.0.0.1", port=0, taker=direct)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(DIRECT + b"abcd")
    request = await direct.taken.get()
    closing = asyncio.create_task(serving.aclose())
    await asyncio.sleep(0.3)
    assert not closing.done()
    request.answer(HEAD, b"done")
    head, body = await answer(reader)
    assert (b"\r\nconnection: close\r\n" in head, body) == (True, b"done")
    assert await reader.read() == b""
    await closing
    writer.close()


async def test_who_does_not_read_gets_no_more_answers_made() -> None:
    """Once many wait to be read the next request is the application's, which waits for that."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        writer.write(DIRECT + b"abcd")
        request = await direct.taken.get()
        large = b"x" * 20_000_000
        request.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(large), large)
        writer.write(DIRECT + b"efgh")
        await until(lambda: direct.ended == ["answered"])
        assert direct.taken.empty()
        assert (await answer(reader))[1] == large
        assert (await answer(reader))[1] == b"app:efgh"


async def test_a_body_is_not_kept_until_the_next_request() -> None:
    """Many connections may be idle, each after a large one; whoever answered it."""
    direct = Direct()
    async with connected(direct) as (reader, writer):
        for handed_on in (False, True):
            writer.write(DIRECT + b"abcd")
            request = await direct.taken.get()
            if handed_on:
                request.hand_on(PlainTextResponse(b"done"))
            else:
                request.answer(HEAD, b"done")
            assert (await answer(reader))[1] == b"done"
            assert request._connection.cycle.body == b""
