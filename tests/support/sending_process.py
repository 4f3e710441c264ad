"""A process that sends, and dies at a chosen point as if killed with -9.

`python -m tests.support.sending_process DATABASE_URL WHERE POINT`, where WHERE is Twilio's address
or the folder of Baileys, and POINT is `claimed` (the provider is not called any more), `written`
(the bridge has just got the file), `answered` (the provider has answered, nothing is recorded yet),
`settled` (the first outcome has just been recorded) or `never`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path

from services.messaging.ports.sending import ClaimedSend, Provider, ProviderMessage, SendOutcome
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.baileys import baileys
from tests.support.sending import ANY_TIME, now, open_database, sender, twilio


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _DyingProvider:
    def __init__(self, provider: Provider, point: str) -> None:
        self.name = provider.name
        self.absorbs_repeats = provider.absorbs_repeats
        self._provider = provider
        self._point = point

    async def send(self, message: ClaimedSend) -> SendOutcome:
        if self._point == "claimed":
            _die()
        outcome = await self._provider.send(message)
        if self._point == "answered":
            _die()
        return outcome

    async def sent_messages(
        self, *, contact_address: str, own_address: str, since: datetime
    ) -> Sequence[ProviderMessage]:
        return await self._provider.sent_messages(
            contact_address=contact_address, own_address=own_address, since=since
        )


class _DyingStore(SqlOutboxStore):
    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> bool:
        await super().settle(message, outcome, retry_at, move_to=move_to)
        _die()
        raise AssertionError


class _DyingFolder(QueueFolder):
    def put_send(self, content: bytes, unique: str) -> str:
        super().put_send(content, unique)
        _die()
        raise AssertionError


def _provider(where: str, point: str) -> AbstractAsyncContextManager[Provider]:
    """Of Twilio at an address, or of Baileys in a folder."""
    if "://" in where:
        return twilio(where)
    return _baileys(Path(where), point)


@asynccontextmanager
async def _baileys(root: Path, point: str) -> AsyncIterator[Provider]:
    folder = _DyingFolder(root) if point == "written" else None
    async with baileys(root, patience=20, folder=folder) as queue:
        yield queue.provider


async def _main(url: str, where: str, point: str) -> None:
    async with open_database(url) as database, _provider(where, point) as provider:
        store = (_DyingStore if point == "settled" else SqlOutboxStore)(database, now, ANY_TIME)
        dying = _DyingProvider(provider, point)
        await sender(store, dying, lease=60, send_timeout=20).dispatcher.run()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
