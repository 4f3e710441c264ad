"""What components say that concerns others, kept from when they are asked about themselves."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from services.common.monitor import Finding, Findings

CLOCKS: Final = "clocks"
APART: Final = 5.0
"""Seconds by which clocks may differ; an answer may have been under way for some of them."""

_OWN: Final = "health"
_KEPT_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Pairing:
    """How a phone is paired with a provider. Whoever sees it can take the session over.

    Attributes:
        qr: What the code to be scanned holds; "" when there is none.
        code: What is to be typed; "" when there is none.
    """

    qr: str
    code: str


class Heard:
    """Remembers for a while.

    Args:
        now: Health's own clock; aware, UTC.
        monotonic: Seconds that never jump.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._clocks: dict[str, tuple[float, float]] = {}
        self._journal = "", float("-inf")
        self._pairings: Mapping[str, Pairing] = {}
        self._paired_at = float("-inf")

    def ahead(self, shows: datetime) -> float:
        """Seconds by which a clock is ahead of health's, from what it shows now."""
        return (shows - self._now()).total_seconds()

    def clock(self, whose: str, ahead: Sequence[float]) -> None:
        """Take note of the clocks of a service's replicas; only the worst of them matters.

        Args:
            ahead: Seconds by which each is ahead of health's; empty when none was heard of.
        """
        if ahead:
            self._clocks[whose] = max(ahead, key=abs), self._monotonic()

    def journal(self, trouble: str) -> None:
        """Take note of what any edge has met in the journal; "" for nothing."""
        self._journal = trouble, self._monotonic()

    def pairings(self, found: Mapping[str, Pairing]) -> None:
        """Take note of what phones are to be paired with, by component."""
        self._pairings, self._paired_at = found, self._monotonic()

    @property
    def to_pair(self) -> Mapping[str, Pairing]:
        """What phones are to be paired with, by component: for holders of a key alone."""
        return self._pairings if self._monotonic() - self._paired_at < _KEPT_SECONDS else {}

    @property
    def journal_trouble(self) -> str:
        """What the edge has met in the journal of late; "" for nothing."""
        trouble, at = self._journal
        return trouble if self._monotonic() - at < _KEPT_SECONDS else ""

    async def clocks(self) -> Findings:
        """Whether clocks agree. The one that differs from most is named.

        Deadlines and leases that one process sets and another one reads depend on it.
        """
        now = self._monotonic()
        ahead = {
            name: seconds
            for name, (seconds, at) in self._clocks.items()
            if now - at < _KEPT_SECONDS
        } | {_OWN: 0.0}
        return {CLOCKS: _finding(ahead)}


def _finding(ahead: Mapping[str, float]) -> Finding:
    middle = statistics.median(ahead.values())
    details = {
        "seconds_ahead": {
            # Nothing is also not behind.
            name: round(one - middle, 1) + 0.0
            for name, one in ahead.items()
        }
    }
    wrong = {name: one - middle for name, one in ahead.items() if abs(one - middle) > APART}
    if not wrong:
        return Finding("ok", details=details)
    if len(ahead) == 2:
        # Which of the two is right can't be told.
        one, other = ahead
        apart = abs(ahead[one] - ahead[other])
        return Finding("down", f"those of {one} and {other} are {apart:.0f} s apart", details)
    reasons = [
        f"that of {name} is {abs(one):.0f} s {'ahead' if one > 0 else 'behind'}"
        for name, one in wrong.items()
    ]
    return Finding("down", "; ".join(reasons), details)
