"""How many pages of one key are in memory at once."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.webhook.api.limits import Turns
from services.webhook.api.problems import ProblemError
from tests.support.api import KEY, OTHER_KEY, Api, PretendMessaging, message, running_api, served

MOST = 8
PAGES = [
    "/api/whatsapp/messages",
    "/api/whatsapp/messages/m-1",
    "/api/whatsapp/conversations",
    "/api/whatsapp/conversation/+972501234567",
]


class Messaging(PretendMessaging):
    """Counts who asks it at once; its pages have three million characters."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.most_at_once = 0

    async def _asked(self, request: Any) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await super()._asked(request)
        finally:
            self.at_once -= 1

    async def ListMessages(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        page = message()
        # Six in JSON for each.
        page.body = "\x01" * 3_000_000
        return pb.ListMessagesResponse(messages=[page])


@pytest.fixture
def messaging() -> Messaging:
    return Messaging()


@pytest.fixture
async def api(messaging: Messaging) -> AsyncIterator[Api]:
    async with served(messaging) as address, running_api(address) as api:
        yield api


@pytest.mark.parametrize("path", PAGES)
async def test_few_pages_of_a_key_are_made_at_once(
    api: Api, messaging: Messaging, path: str
) -> None:
    """Who asks for many waits, and gets them all."""
    messaging.busy_seconds = 0.05
    answers = await asyncio.gather(*(api.http.head(path) for _ in range(3 * MOST)))
    assert {answer.status_code for answer in answers} == {200}
    assert messaging.most_at_once == MOST


async def test_pages_that_are_not_read_keep_their_key_waiting(api: Api) -> None:
    """No page of a key is made while so many haven't been sent; others don't wait for that."""
    async with contextlib.AsyncExitStack() as unread:
        for _ in range(MOST):
            await unread.enter_async_context(unread_page(api))
        waiting = asyncio.create_task(api.http.head(PAGES[1]))
        assert (await api.http.get("/api/whatsapp/status")).status_code == 200
        others = await api.http.head(PAGES[1], headers={"x-api-key": OTHER_KEY})
        assert others.status_code == 200
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert (await waiting).status_code == 200


@contextlib.asynccontextmanager
async def unread_page(api: Api) -> AsyncIterator[None]:
    """A page of which only the first line is read."""
    with contextlib.closing(socket.socket()) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", api.http.base_url.port))
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        asked = f"GET {PAGES[0]} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n"
        await loop.sock_sendall(one, asked.encode())
        assert await loop.sock_recv(one, 15) == b"HTTP/1.1 200 OK"
        yield


async def test_who_waits_too_long_is_refused() -> None:
    """A turn that doesn't come in time is refused, and comes when another has ended."""
    turn = contextlib.asynccontextmanager(Turns(per_key=1, wait_seconds=0.05).one)
    request = Request({"type": "http", "state": {"key": "crm"}})
    async with turn(request):
        with pytest.raises(ProblemError) as raised:
            async with turn(request):
                pass
    assert raised.value.status == 429
    async with turn(request):
        pass
