"""Leaving a provider alone while it fails, and saying how it is."""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import (
    BreakerPhase,
    ProviderCondition,
    ProviderState,
    ProviderStatus,
)
from services.messaging.ports.sending import OutcomeKind, SendOutcome

_MAX_HOLD = timedelta(minutes=1)


def _nothing_known() -> ProviderCondition:
    return ProviderCondition(usable=True)


class Breaker:
    """A circuit breaker for one provider, in this process's memory.

    Closed, it lets everything through. After several failures in a row it opens: nothing is sent.
    When its pause is over it is half-open: one message at a time is tried. A success closes it; a
    failure opens it again, for twice as long.

    A refusal of a single message is a success: the provider is there and answers.

    Args:
        failures: So many in a row open it.
        first_pause: How long it stays open at first.
        longest_pause: Where doubling ends.
        condition: What the provider knows of itself. While it isn't usable nothing is sent.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        failures: int = 5,
        first_pause: timedelta = timedelta(seconds=5),
        longest_pause: timedelta = timedelta(minutes=2),
        condition: Callable[[], ProviderCondition] = _nothing_known,
    ) -> None:
        self._name = name
        self._clock = clock
        self._failures = failures
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._condition = condition
        self._failed_in_a_row = 0
        self._pause = first_pause
        self._is_open = False
        self._open_until: datetime | None = None
        self._held_until: datetime | None = None
        self._under_way = 0
        self._last_success_at: datetime | None = None
        self._last_failure_at: datetime | None = None
        self._last_error: str | None = None
        self._ack_latency: timedelta | None = None

    def is_sound(self) -> bool:
        """Whether the provider may be relied on, even if it is busy."""
        return self._retry_at() is None and not self._is_open and self._condition().usable

    def free(self) -> int | None:
        """How many messages may be sent now; None: any number."""
        condition = self._condition()
        if self._retry_at() is not None or not condition.usable:
            return 0
        if self._is_open:
            return 0 if self._under_way else 1
        if condition.capacity is None:
            return None
        return max(0, condition.capacity - self._under_way)

    def started(self) -> None:
        """Count a call to the provider that begins."""
        self._under_way += 1

    def ended(self, outcome: SendOutcome | None, took: timedelta | None = None) -> None:
        """Take note of how a call ended; None when that says nothing about the provider."""
        self._under_way -= 1
        if outcome is None:
            return
        if outcome.kind is OutcomeKind.ACCEPTED:
            self._ack_latency = took
        if outcome.kind in (OutcomeKind.ACCEPTED, OutcomeKind.REJECTED):
            self._succeeded()
        else:
            self._failed(outcome)

    def status(self) -> ProviderStatus:
        """How the provider is doing."""
        condition = self._condition()
        state, reason = self._state()
        if not condition.usable:
            state, reason = ProviderState.UNAVAILABLE, condition.reason
        elif condition.reason and state in (ProviderState.HEALTHY, ProviderState.UNTRIED):
            state, reason = ProviderState.DEGRADED, condition.reason
        return ProviderStatus(
            name=self._name,
            state=state,
            reason=reason,
            last_success_at=self._last_success_at,
            last_failure_at=self._last_failure_at,
            last_error=self._last_error,
            retry_at=self._retry_at(),
            pairing=condition.pairing,
            breaker=self.phase(),
            # What keeps a connection knows it better: our call to it only hands over.
            ack_latency=condition.ack_latency or self._ack_latency,
            restricted=condition.restricted,
        )

    def phase(self) -> BreakerPhase:
        """What it lets through."""
        if not self._is_open:
            return BreakerPhase.CLOSED
        return BreakerPhase.HALF_OPEN if self._retry_at() is None else BreakerPhase.OPEN

    def _succeeded(self) -> None:
        self._last_success_at = self._clock()
        self._failed_in_a_row = 0
        self._is_open = False
        self._open_until = None
        self._pause = self._first_pause

    def _failed(self, outcome: SendOutcome) -> None:
        now = self._clock()
        self._last_failure_at = now
        self._last_error = f"{outcome.error_code}: {outcome.error_message}"
        self._failed_in_a_row += 1
        if outcome.retry_after is not None:
            # What it asks of one holds for all.
            held_until = now + min(outcome.retry_after, _MAX_HOLD)
            self._held_until = max(held_until, self._held_until or held_until)
        # Calls that were under way together fail together, and count as one try.
        is_late = self._open_until is not None and now < self._open_until
        if self._failed_in_a_row < self._failures or is_late:
            return
        if self._is_open:
            self._pause = min(2 * self._pause, self._longest_pause)
        self._is_open = True
        self._open_until = now + self._pause

    def _retry_at(self) -> datetime | None:
        """Until when nothing is sent; None when something may be."""
        now = self._clock()
        # What ends later than any pause was begun before the clock was set back.
        latest = now + max(self._longest_pause, _MAX_HOLD)
        ends = [end for end in (self._open_until, self._held_until) if end and now < end <= latest]
        return max(ends, default=None)

    def _state(self) -> tuple[ProviderState, str]:
        if self._retry_at() is not None:
            if self._is_open:
                return ProviderState.UNAVAILABLE, f"failed {self._failed_in_a_row} times in a row"
            return ProviderState.UNAVAILABLE, "asked us to wait"
        if self._failed_in_a_row:
            tried = "being tried again" if self._is_open else "still tried"
            return (
                ProviderState.DEGRADED,
                f"failed {self._failed_in_a_row} times in a row, {tried}",
            )
        if self._last_success_at is None:
            return ProviderState.UNTRIED, "nothing was sent yet"
        return ProviderState.HEALTHY, "the last call succeeded"
