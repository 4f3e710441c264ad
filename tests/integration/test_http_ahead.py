"""Requests that are sent before earlier ones of their connection are answered."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from services.common.http_server import serving_http
from tests.support.raw_http import Flood, statuses

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


async def test_no_more_is_read_while_requests_wait() -> None:
    """Otherwise each answer would let in as many requests as one reading holds."""
    done = asyncio.Event()
    started = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        if scope["type"] != "http":
            return
        started += 1
        await receive()
        await done.wait()
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        flood = Flood(port)
        await flood.send(REQUEST * 5)
        await asyncio.sleep(0.2)
        more = REQUEST * 1_000_000
        taken = await flood.send(more)
        done.set()
        answers = statuses(await flood.answers())
    # All that was taken stands in the system's buffers.
    assert taken < len(more) / 2
    assert answers == [200] * started
    assert started <= 10


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(REQUEST[:-2] + b"a:\r\n" * 190 + b"\r\n", id="headers"),
        pytest.param(REQUEST[:-2] + b"content-length: 30000\r\n\r\n" + b"x" * 30_000, id="bodies"),
        pytest.param(
            REQUEST + REQUEST[:-2] + b"content-length: 200000\r\n\r\n" + b"x" * 200_000, id="body"
        ),
    ],
)
async def test_requests_ahead_take_little_memory(request_: bytes) -> None:
    """A request may be large, and not all that wait for it, too."""
    done = asyncio.Event()
    bodies: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await done.wait()
        bodies.append(len((await receive())["body"]))
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"body"})

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        flood = Flood(port)
        await flood.send(request_ * 20)
        done.set()
        answers = statuses(await flood.answers())
    assert answers == [200] * len(bodies)
    assert 1 <= len(bodies) <= 4
    assert sum(bodies) < 100_000


async def test_who_leaves_ends_the_answer_that_is_under_way() -> None:
    """Also when another request was sent ahead of its end."""
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({**HEAD, "headers": []})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with serving_http(app, host="127.0.0.1", port=0) as port:
        for ahead in (0, 1, 5):
            ended.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST * (1 + ahead))
            await asyncio.wait_for(reader.readuntil(b"piece"), timeout=60)
            writer.transport.abort()
            await asyncio.wait_for(ended.wait(), timeout=10)
