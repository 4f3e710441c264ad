"""How fast messages go out: to one recipient, and from one sender."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RecipientPace:
    """One message an interval on average; after a silence some more at once.

    WhatsApp takes about one message in 6 seconds to the same person, and bursts that are made up
    for afterwards (Meta, Cloud API, "Pair rate limits").

    Attributes:
        interval: Zero switches the pace off.
        burst: So many messages may go at once.
    """

    interval: timedelta = timedelta(seconds=6)
    burst: int = 10

    def book(self, booked_until: datetime | None, now: datetime) -> tuple[datetime, datetime]:
        """Book the next place: when the message may go, and the new `booked_until`.

        This is the generic cell rate algorithm (ITU-T I.371).
        """
        booked = max(booked_until or now, now) + self.interval
        return max(now, booked - self.burst * self.interval), booked


class SenderPace:
    """So many messages a second from this process, whoever they are for.

    Args:
        per_second: Also how many may go at once after a silence.
        clock: Seconds that only grow.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._tokens = self._most = max(per_second, 1.0)
        self._filled_at = clock()

    def available(self) -> int:
        """How many messages may go now."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        return int(self._tokens)

    def take(self, count: int) -> None:
        """Count messages that go; at most what is available."""
        self._tokens -= count

    def seconds_to_next(self) -> float:
        """How long until one more may go."""
        return max(0.0, (1 - self._tokens) / self._per_second)
