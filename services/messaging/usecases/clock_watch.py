"""Noticing that the clock was set back, this process's or that of one that is gone.

When something is due, and until when somebody has claimed it, is stored as time of day, because
other processes read it. What was written while the clock was ahead would wait until that time
comes again: an hour, or a year.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.common.errors import UnavailableError
from services.messaging.ports.clock import Clock, Schedule

log = structlog.get_logger(__name__)

_STEP: Final = timedelta(seconds=1)
"""Less is how clocks are kept right."""

_AGAIN_SECONDS: Final = 10.0
"""By then transactions are committed that had read the clock before it was set back."""


class ClockWatch:
    """Has what is due brought forward when the clock was set back.

    A process whose clock alone is ahead goes on storing things at times to come. When the latest
    of these times stays the same, that process is gone, or idle, or its clock is right again.

    Args:
        longest_lease: Nothing stays claimed for longer than this after the clock was set back. A
            claim that is cut short by it is only looked at again.
        monotonic: Clock in seconds that nobody can set.
        poll_seconds: Pause between looks at the clock.
        look_seconds: Pause between looks at what others have stored.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        clock: Clock,
        longest_lease: timedelta = timedelta(minutes=2),
        monotonic: Callable[[], float] = time.monotonic,
        poll_seconds: float = 1.0,
        look_seconds: float = 30.0,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._longest_lease = longest_lease
        self._monotonic = monotonic
        self._poll_seconds = poll_seconds
        self._look_seconds = look_seconds
        self._look_at = monotonic()
        self._looked = False
        self._latest_ahead: datetime | None = None
        self._brought_forward: datetime | None = None

    async def run(self) -> None:
        """Watch for ever, and look first whether it happened while nobody watched."""
        expected = self._offset()
        again_at: float | None = None
        while True:
            offset = self._offset()
            try:
                set_back = expected - offset > _STEP or await self._was_left_ahead()
                if set_back or (again_at is not None and self._monotonic() >= again_at):
                    count = await self._schedule.bring_forward(longest_lease=self._longest_lease)
                    again_at = self._monotonic() + _AGAIN_SECONDS if set_back else None
                    self._brought_forward = self._latest_ahead
                    if set_back:
                        log.warning("the clock was set back", brought_forward=count)
            except UnavailableError:
                log.warning("whether the clock was set back waits for the database")
            else:
                expected = offset
            await asyncio.sleep(self._poll_seconds)

    async def _was_left_ahead(self) -> bool:
        """Whether something waits that was stored while a clock was ahead, and nobody looks after.

        At the first look whoever stored it counts as gone.
        """
        if self._monotonic() < self._look_at:
            return False
        latest = await self._schedule.latest_ahead()
        stands = latest == self._latest_ahead or not self._looked
        self._looked, self._latest_ahead = True, latest
        self._look_at = self._monotonic() + self._look_seconds
        return latest is not None and stands and latest != self._brought_forward

    def _offset(self) -> datetime:
        """The time at which the clock that nobody can set stood at 0."""
        return self._clock() - timedelta(seconds=self._monotonic())
