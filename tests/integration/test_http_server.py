"""Serving HTTP on a real socket."""

import asyncio
import contextlib
import json

import pytest
from starlette.types import Receive, Scope, Send

from services.common import http_connection
from services.common.http_server import serving_http
from tests.support.raw_http import exchange

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


async def test_a_short_answer_arrives_in_one_piece() -> None:
    """Head and body need one packet, and the connection takes the next request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(HEAD)
            await send({"type": "http.response.body", "body": b"body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(REQUEST)
            answer = await asyncio.wait_for(reader.read(10_000), timeout=60)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\nbody")
        writer.close()
        await writer.wait_closed()


async def test_a_head_does_not_wait_for_a_slow_body() -> None:
    """Whoever streams sees the head as soon as it is known, then each piece."""
    more = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(HEAD)
            for piece in (b"bo", b"dy"):
                await more.wait()
                more.clear()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        async with asyncio.timeout(60):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            for piece in (b"bo", b"dy"):
                more.set()
                assert await reader.readexactly(2) == piece
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_", [b"FOO / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\na: \0\r\n\r\n"]
)
async def test_what_is_no_http_is_answered_by_a_problem_document(request_: bytes) -> None:
    """As every other error, though no application has seen it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        head, _, body = (await exchange(port, request_)).partition(b"\r\n\r\n")
    assert head.startswith(
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
    )
    assert (json.loads(body)["status"], json.loads(body)["reason"]) == (400, "INVALID_INPUT")


async def test_an_answer_that_ends_the_connection_is_whole() -> None:
    """Closing right after the head loses nothing of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.read(), timeout=60)
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


async def test_requests_on_open_connections_are_answered_while_leaving() -> None:
    """Neither who has just connected nor who asks again loses the request, and both must go then.

    Found by stopping an edge under load.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(HEAD)
            await send({"type": "http.response.body", "body": b"body"})

    async with contextlib.AsyncExitStack() as serving:
        port = await serving.enter_async_context(serving_http(app, host="127.0.0.1", port=0))
        fresh = await asyncio.open_connection("127.0.0.1", port)
        used = await asyncio.open_connection("127.0.0.1", port)
        used[1].write(REQUEST)
        await used[0].readuntil(b"body")
        leaving = asyncio.create_task(serving.aclose())
        with contextlib.suppress(OSError):
            while True:
                _, probe = await asyncio.open_connection("127.0.0.1", port)
                probe.close()
                await asyncio.sleep(0)
        for reader, writer in (fresh, used):
            writer.write(REQUEST)
            answer = await asyncio.wait_for(reader.read(), timeout=60)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
            writer.close()
        await leaving


async def test_a_connection_without_a_next_request_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two requests sent at once are both answered, then the wait for the next one has an end."""
    monkeypatch.setattr(http_connection, "_HEAD_SECONDS", 1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(HEAD)
            # The wait for a request doesn't count the time an answer takes.
            await asyncio.sleep(1.1)
            await send({"type": "http.response.body", "body": b"body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + REQUEST)
        answers = await asyncio.wait_for(reader.read(), timeout=60)
        assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"\r\n\r\nbody") == 2
        writer.close()
        await writer.wait_closed()
