"""Telling watchers what happens, from wherever they left off."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from services.common.errors import OverloadedError, UnavailableError
from services.messaging.domain.contact import Identity
from services.messaging.ports.reading import Change, ChangeReader, Position
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Watched:
    """One thing to tell a watcher, and where to go on; without a change it is a sign of life."""

    change: Change | None
    position: Position


class Watch:
    """Follows the events for any number of watchers with one look at a time.

    A watcher reads its next events only when it has handed on the last, so one that is slow holds
    one page and no more.

    Args:
        poll_seconds: Pause between looks when nobody said that something happened.
        alive_seconds: After so long without an event a watcher gets a sign of life.
        max_watchers: More are refused.
    """

    def __init__(
        self,
        reader: ChangeReader,
        *,
        poll_seconds: float = 1.0,
        alive_seconds: float = 15.0,
        max_watchers: int = 200,
        page_size: int = 100,
    ) -> None:
        self._reader = reader
        self._poll_seconds = poll_seconds
        self._alive_seconds = alive_seconds
        self._max_watchers = max_watchers
        self._page_size = page_size
        self._watchers = 0
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look at once: something has happened."""
        self._wake.set()

    async def run(self) -> None:
        """Look for news for ever. When cancelled, every watcher is told to come back later."""
        pause = self._poll_seconds
        end: Position | None = None
        try:
            await self._adopt()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                        # What was written is visible only once all older transactions have ended.
                        pause = _FIRST_PAUSE_SECONDS
                self._wake.clear()
                if not self._watchers:
                    pause = self._poll_seconds
                    continue
                found = await self._newest(end)
                if found != end:
                    end = found
                    self._tell()
                pause = min(2 * pause, self._poll_seconds)
        finally:
            self._stopping = True
            self._tell()

    async def events(
        self, position: Position | None, contact: Identity | None
    ) -> AsyncGenerator[Watched, None]:
        """What happens after a position, for ever; None begins now.

        The first tells the position only.

        Raises:
            InvalidInputError: The position is another database's.
            OverloadedError: There are too many watchers.
            UnavailableError: The process is about to end, or the database can't be reached; whoever
                comes back with the last position misses nothing.
        """
        if self._watchers >= self._max_watchers:
            raise OverloadedError("too many watchers at once, try again later")
        self._watchers += 1
        try:
            self._go_on()
            if position is None:
                position = await drained(self._reader.end())
            yield Watched(None, position)
            while True:
                moved = self._moved
                page = await drained(
                    self._reader.after(position, limit=self._page_size, contact=contact)
                )
                for change in page.changes:
                    yield Watched(change, change.event.position)
                position = page.position
                self._go_on()
                if page.is_last and not await self._something_happens(moved):
                    yield Watched(None, position)
        finally:
            self._watchers -= 1

    def _go_on(self) -> None:
        if self._stopping:
            raise UnavailableError("the server is stopping: come back with the last cursor")

    async def _something_happens(self, moved: asyncio.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._alive_seconds):
                return await moved.wait()
        return False

    async def _adopt(self) -> None:
        try:
            if adopted := await drained(self._reader.adopt()):
                log.warning("the database was restored: its events are old ones", count=adopted)
        except UnavailableError:
            log.warning("watchers wait for the database")

    async def _newest(self, known: Position | None) -> Position | None:
        try:
            return await drained(self._reader.newest())
        except UnavailableError:
            log.warning("watchers wait for the database")
            return known

    def _tell(self) -> None:
        # Whoever reads at this moment holds the old one, and so won't wait.
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
