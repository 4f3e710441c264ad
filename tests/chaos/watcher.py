"""A program that follows messages by the stream, and comes back whenever it is cut off."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from services.messaging.domain.message import MessageStatus
from tests.support.stack import API_KEY

_QUIET_SECONDS = 40


class Watcher:
    """Reads the stream of changes.

    Attributes:
        seen: How often each event came, by its place among all of them.
        went_back: Messages that were shown with a status below one shown before.
    """

    def __init__(self, api: str) -> None:
        self._api = api
        self._position: str | None = None
        self._rank: dict[str, int] = {}
        self.begun = asyncio.Event()
        self.seen: dict[str, int] = {}
        self.went_back: list[str] = []

    async def run(self) -> None:
        """Follow until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=_QUIET_SECONDS)
        async with aiohttp.ClientSession(
            timeout=timeout, headers={"X-API-Key": API_KEY}, read_bufsize=2**20
        ) as client:
            while True:
                headers = {"Last-Event-ID": self._position} if self._position else {}
                try:
                    async with client.get(
                        f"{self._api}/api/whatsapp/stream", headers=headers
                    ) as answer:
                        if answer.ok:
                            async for id_, data in _events(answer.content):
                                self._take(id_, data)
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    pass
                await asyncio.sleep(0.2)

    def _take(self, id_: str, data: str) -> None:
        if data:
            change: dict[str, Any] = json.loads(data)
            self.seen[id_] = self.seen.get(id_, 0) + 1
            message = change["message"]
            rank = MessageStatus(message["status"]).rank
            if rank < self._rank.get(message["id"], 0):
                self.went_back.append(message["id"])
            self._rank[message["id"]] = rank
        # Only now: what was cut off in the middle comes again.
        self._position = id_
        self.begun.set()


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    id_ = data = ""
    async for line in content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "id":
            id_ = value
        elif name == "data":
            data = value
        elif not name and id_:
            yield id_, data
            id_ = data = ""
