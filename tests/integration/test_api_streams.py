"""Server-sent events and files over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.api import Api, PretendMessaging, event, running_api, served
from tests.support.edge import until

STREAM = "/api/whatsapp/stream"
FILE = "/api/whatsapp/media/f-1"


@pytest.fixture
def messaging() -> PretendMessaging:
    return PretendMessaging()


@pytest.fixture
async def api(messaging: PretendMessaging) -> AsyncIterator[Api]:
    async with served(messaging) as address, running_api(address, heartbeat_seconds=0.1) as api:
        yield api


@dataclass
class Block:
    """One block of a stream."""

    id: str | None = None
    data: str | None = None
    comment: bool = False


async def blocks(response: httpx.Response) -> AsyncIterator[Block]:
    """A stream's blocks, read as a browser would."""
    block = Block()
    async for line in response.aiter_lines():
        if not line:
            yield block
            block = Block()
        elif line.startswith(":"):
            block.comment = True
        else:
            name, _, value = line.partition(": ")
            if name in ("id", "data"):
                setattr(block, name, value)


@contextlib.asynccontextmanager
async def streaming(api: Api, last: str | None = None) -> AsyncIterator[AsyncIterator[Block]]:
    """An open stream."""
    headers = {"last-event-id": last} if last else {}
    async with api.http.stream("GET", STREAM, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield blocks(response)


async def with_data(stream: AsyncIterator[Block], count: int) -> list[Block]:
    """The next blocks that hold an event."""
    found: list[Block] = []
    async with asyncio.timeout(60):
        async for block in stream:
            if block.data:
                found.append(block)
            if len(found) == count:
                return found
    return found


async def test_a_client_that_comes_back_misses_nothing(
    api: Api, messaging: PretendMessaging
) -> None:
    """Each event has its position; from the last one seen it goes on without a gap or repeat."""
    async with streaming(api) as stream:
        messaging.happened += [event(1), event(2)]
        seen = await with_data(stream, 2)
    messaging.happened += [event(3), event(4)]
    async with streaming(api, last=seen[-1].id) as stream:
        seen += await with_data(stream, 2)
    assert [block.id for block in seen] == ["cursor-1", "cursor-2", "cursor-3", "cursor-4"]
    data = json.loads(seen[0].data or "")
    assert data["event"]["kind"] == "queued"
    assert data["message"]["id"] == "m-1"


async def test_the_position_is_known_before_anything_happens(
    api: Api, messaging: PretendMessaging
) -> None:
    """The first block has an id already, so that what happens during a reconnect isn't missed."""
    async with streaming(api) as stream:
        first = await anext(stream)
    assert (first.id, first.data) == ("cursor-0", None)
    messaging.happened.append(event(1))
    async with streaming(api, last=first.id) as stream:
        assert [block.id for block in await with_data(stream, 1)] == ["cursor-1"]


async def test_silence_is_filled(api: Api) -> None:
    """A comment now and then shows the client, and every proxy between, that it still goes on."""
    async with streaming(api) as stream, asyncio.timeout(60):
        async for block in stream:
            if block.comment:
                break


async def test_a_client_that_leaves_is_not_watched_for(
    api: Api, messaging: PretendMessaging
) -> None:
    """The call to messaging ends with the client, and its place is free again."""
    for _ in range(5):
        async with streaming(api) as stream:
            await anext(stream)
            assert messaging.watching == 1
        await until(lambda: messaging.watching == 0)


async def test_streams_of_a_key_are_bounded(api: Api) -> None:
    """Beyond its bound a key gets 429, and so does a send that would wait."""
    async with contextlib.AsyncExitStack() as opened:
        streams = [await opened.enter_async_context(streaming(api)) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        response = await api.http.get(STREAM)
        assert (response.status_code, response.json()["reason"]) == (429, "TOO_MANY_HELD")
        waiting = await api.http.post(
            "/api/whatsapp/send", params={"wait": 1}, json={"to": "1", "body": "x"}
        )
        assert waiting.status_code == 429


async def test_stopping_ends_streams_and_waiting_sends_at_once(
    messaging: PretendMessaging,
) -> None:
    """Nobody's open stream or wait keeps the edge from stopping; both end as if by themselves."""
    async with (
        served(messaging) as address,
        running_api(address) as api,
        streaming(api) as stream,
    ):
        await anext(stream)
        send = asyncio.create_task(
            api.http.post("/api/whatsapp/send", params={"wait": 30}, json={"to": "1", "body": "x"})
        )
        await until(lambda: len(messaging.requests) >= 3)
        api.held.close()
        async with asyncio.timeout(60):
            assert [block async for block in stream if block.data] == []
            assert (await send).json()["status"] == "queued"


async def test_messaging_gone_ends_the_stream(messaging: PretendMessaging) -> None:
    """The client sees the end and comes back with its position."""
    async with contextlib.AsyncExitStack() as stack:
        serving = contextlib.AsyncExitStack()
        address = await serving.enter_async_context(served(messaging))
        api = await stack.enter_async_context(running_api(address))
        async with streaming(api) as stream:
            await anext(stream)
            await serving.aclose()
            async with asyncio.timeout(60):
                assert [block async for block in stream if block.data] == []


async def test_a_file_is_given_out_for_ever(api: Api) -> None:
    """The file with its type and size; who has it already isn't sent it again."""
    response = await api.http.get(FILE)
    assert (response.status_code, response.content) == (200, b"firstsecond")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-length"] == "11"
    assert response.headers["content-disposition"] == "inline"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    again = await api.http.get(FILE, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_one_file_after_the_other_is_never_too_many(api: Api) -> None:
    """Whoever has a file may ask for the next at once, with a key that may download one."""
    statuses = [(await api.http.get(FILE)).status_code for _ in range(200)]
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("text/html", "text/html"),
        ("image/svg+xml", "image/svg+xml"),
        ("application/pdf", "application/pdf"),
        ("image/png\r\nx-evil: 1", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
async def test_a_file_that_may_hold_scripts_is_downloaded(
    api: Api, messaging: PretendMessaging, content_type: str, shown: str
) -> None:
    """What isn't a picture, sound or film is never shown in the browser, whatever it says it is."""
    messaging.file = (content_type, [b"<script>"])
    response = await api.http.get(FILE)
    assert response.headers["content-type"] == shown
    assert response.headers["content-disposition"] == "attachment"
    assert "x-evil" not in response.headers


async def test_an_unknown_file_is_not_found(api: Api) -> None:
    """404, also for who says to have it."""
    headers = {"if-none-match": '"f-2"'}
    response = await api.http.get("/api/whatsapp/media/f-2", headers=headers)
    assert (response.status_code, response.json()["reason"]) == (404, "NOT_FOUND")
