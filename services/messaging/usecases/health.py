"""What messaging can say about sending, about providers and vendors, and about what goes on."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from services.common.errors import UnavailableError
from services.common.monitor import Finding, Findings, Status
from services.messaging.ports.activity import Activity, ActivityReader
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import BreakerPhase, ProviderState, ProviderStatus
from services.messaging.ports.reading import MessageReader

SENDING: Final = "sending"
ACTIVITY: Final = "activity"
LATE: Final = timedelta(minutes=5)
"""A message that isn't settled so long after it was due is late."""

_STATUSES: Final[Mapping[ProviderState, Status]] = {
    ProviderState.HEALTHY: "ok",
    # Nothing is wrong that anybody knows of.
    ProviderState.UNTRIED: "ok",
    ProviderState.DEGRADED: "degraded",
    ProviderState.UNAVAILABLE: "down",
}
_PERIODS: Final = (timedelta(minutes=5), timedelta(hours=1), timedelta(hours=24))


class SendingProbe:
    """Looks how much waits to be sent, and for how long."""

    def __init__(self, reader: MessageReader, *, clock: Clock, registry: CollectorRegistry) -> None:
        self._reader = reader
        self._clock = clock
        self._messages = Gauge(
            "switchboard_outbox_messages",
            "Unsettled sends by state: due, sending, or unknown, which are being looked up.",
            ["state"],
            registry=registry,
        )
        self._age = Gauge(
            "switchboard_outbox_oldest_age_seconds",
            "How long the unsettled send that was due first has been due; 0 when none is."
            " What waits for its contact's pace isn't due yet.",
            registry=registry,
        )
        self._replies = Gauge(
            "switchboard_pending_replies",
            "Conversations that wait for the assistant.",
            registry=registry,
        )
        self._parked = Gauge(
            "switchboard_parked_reports",
            "Reports about messages that aren't known yet, or are another contact's.",
            registry=registry,
        )

    async def look(self) -> Findings:
        """What is found now."""
        try:
            sizes = await self._reader.queue_sizes()
        except UnavailableError:
            return {SENDING: Finding("unknown", "the database can't be asked")}
        age = 0.0
        if sizes.first_due_at is not None:
            age = max((self._clock() - sizes.first_due_at).total_seconds(), 0.0)
        for state, count in (
            ("due", sizes.due),
            ("sending", sizes.sending),
            ("unknown", sizes.unknown),
        ):
            self._messages.labels(state).set(count)
        self._age.set(age)
        self._replies.set(sizes.replies)
        self._parked.set(sizes.parked)
        details = {
            "due": sizes.due,
            "under_way": sizes.sending,
            "unknown": sizes.unknown,
            "oldest_unsettled_seconds": round(age, 1),
            "replies_waiting": sizes.replies,
            "reports_parked": sizes.parked,
        }
        if age > LATE.total_seconds():
            reason = f"a message has been due for {age:.0f} s"
            return {SENDING: Finding("degraded", reason, details)}
        return {SENDING: Finding("ok", details=details)}


class ActivityProbe:
    """Counts what came and went.

    Args:
        lost_webhooks: How many were made up for since the start, and when was last looked.
    """

    def __init__(
        self,
        reader: ActivityReader,
        lost_webhooks: Callable[[], tuple[int, datetime | None]],
    ) -> None:
        self._reader = reader
        self._lost_webhooks = lost_webhooks

    async def look(self) -> Findings:
        """What is found now."""
        try:
            periods = [(span, await self._reader.since(span)) for span in _PERIODS]
            hours = await self._reader.hours(24)
        except UnavailableError:
            return {ACTIVITY: Finding("unknown", "the database can't be asked")}
        gaps, looked_at = self._lost_webhooks()
        details = {
            "periods": [
                {"seconds": span.total_seconds(), **_counts(found)} for span, found in periods
            ],
            "hours": [{"start": hour.since.isoformat(), **_counts(hour)} for hour in hours],
            "webhook_gaps": gaps,
            "webhook_gaps_looked_at": looked_at.isoformat() if looked_at else None,
        }
        return {ACTIVITY: Finding("ok", details=details)}


def _counts(activity: Activity) -> dict[str, object]:
    return {
        "messages_in": activity.messages_in,
        "messages_out": activity.messages_out,
        "calls": activity.calls,
    }


def provider_finding(status: ProviderStatus) -> Finding:
    """How a provider is. Its own words are left out: they may quote a number."""
    latency = status.ack_latency
    details: dict[str, object] = {
        "state": status.state.value,
        "breaker": status.breaker.value,
        "ack_latency_seconds": latency.total_seconds() if latency is not None else None,
        "restricted": status.restricted,
        "needs_pairing": status.pairing is not None,
        **_outcomes(status),
    }
    reason = "" if status.state is ProviderState.HEALTHY else status.reason
    return Finding(_STATUSES[status.state], reason, details, settled=True)


def vendor_finding(status: ProviderStatus) -> Finding:
    """How a vendor's last calls ended. No call is made to find out."""
    details = {"state": status.state.value, **_outcomes(status)}
    if status.state is ProviderState.UNTRIED:
        return Finding("ok", "not asked for anything since the start", details, settled=True)
    reason = "" if status.state is ProviderState.HEALTHY else status.reason
    return Finding(_STATUSES[status.state], reason, details, settled=True)


def _outcomes(status: ProviderStatus) -> dict[str, object]:
    def moment(at: datetime | None) -> str | None:
        return at.isoformat() if at else None

    return {
        "last_success_at": moment(status.last_success_at),
        "last_failure_at": moment(status.last_failure_at),
        "last_error": status.last_error.partition(":")[0] if status.last_error else None,
        "retry_at": moment(status.retry_at),
    }


class BreakerMetrics:
    """Shows to Prometheus what circuit breakers let through."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._phase = Gauge(
            "switchboard_provider_breaker_state",
            "1 for the phase in which a provider's circuit breaker is: closed, open or half_open.",
            ["provider", "phase"],
            registry=registry,
        )
        self._success = Gauge(
            "switchboard_provider_last_success_timestamp_seconds",
            "When a provider last took a message, in Unix time; 0 when it never did.",
            ["provider"],
            registry=registry,
        )
        self._usable = Gauge(
            "switchboard_provider_usable",
            "1 while messages may be handed to a provider.",
            ["provider"],
            registry=registry,
        )

    def show(self, statuses: Sequence[ProviderStatus]) -> None:
        """Take over how the providers are now."""
        for status in statuses:
            for phase in BreakerPhase:
                self._phase.labels(status.name, phase.value).set(status.breaker is phase)
            at = status.last_success_at
            self._success.labels(status.name).set(at.timestamp() if at else 0)
            self._usable.labels(status.name).set(status.state is not ProviderState.UNAVAILABLE)
