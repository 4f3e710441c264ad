"""The caller's end of the line: time goes by, and they may hang up at any moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class HungUpError(Exception):
    """The line is dead."""


class Line:
    """A clock on which speech takes its full time, however fast it is really gone through.

    Requests take their real time on it. Whoever waits on a line that goes dead gets
    `HungUpError`.

    Attributes:
        hang_up_at: When the caller hangs up, on this clock.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._time = asyncio.get_running_loop().time
        self._started = self._time()
        self._skipped = 0.0
        self._dead = asyncio.Event()
        self.hang_up_at: float | None = None

    @property
    def now(self) -> float:
        """Seconds since the call began."""
        return self._time() - self._started + self._skipped

    @property
    def is_dead(self) -> bool:
        """Whether somebody hung up."""
        return self._dead.is_set()

    def hang_up(self) -> None:
        """End it, for everybody who waits."""
        self._dead.set()

    async def pass_time(self, seconds: float) -> None:
        """Let something be heard or said."""
        until = self.now + seconds
        if self.hang_up_at is not None:
            until = min(until, max(self.now, self.hang_up_at))
        try:
            async with asyncio.timeout((until - self.now) / self._speed):
                await self._dead.wait()
        except TimeoutError:
            self._skipped += max(0.0, until - self.now)
        self._check()

    async def ask(self, work: Awaitable[T], abandoned: Callable[[asyncio.Future[T]], None]) -> T:
        """Wait for a request's answer.

        Args:
            abandoned: Gets the request when the line goes dead meanwhile; it isn't cancelled.
        """
        asked = asyncio.ensure_future(work)
        dead = asyncio.ensure_future(self._dead.wait())
        left = None if self.hang_up_at is None else max(0.0, self.hang_up_at - self.now)
        try:
            await asyncio.wait({asked, dead}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        finally:
            dead.cancel()
        if not asked.done():
            abandoned(asked)
            self.hang_up()
        self._check()
        return asked.result()

    def _check(self) -> None:
        if self.hang_up_at is not None and self.now >= self.hang_up_at:
            self._dead.set()
        if self._dead.is_set():
            raise HungUpError
