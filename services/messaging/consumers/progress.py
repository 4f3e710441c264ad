"""Whether the journal's events are processed: how many wait, since when, and what ended in DEAD."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Gauge

from services.common.errors import UnavailableError
from services.common.journal.condition import (
    ConsumerCondition,
    consumer_condition,
    stream_messages,
)
from services.common.journal.streams import DEAD_STREAM, INGEST_STREAM
from services.common.monitor import Finding, Findings
from services.messaging.ports.clock import Clock

COMPONENT: Final = "processing"
LATE: Final = timedelta(seconds=60)
"""An event that waits longer is behind."""


class Progress:
    """Asks JetStream how far our consumers are.

    Args:
        client: May still be connecting.
        durables: Names of the durable consumers of the journal.
    """

    def __init__(
        self,
        client: Client,
        durables: Sequence[str],
        *,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        self._client = client
        self._durables = durables
        self._clock = clock
        self._pending = Gauge(
            "switchboard_consumer_pending_events",
            "Events of the journal that a consumer hasn't acknowledged, those under way included.",
            ["consumer"],
            registry=registry,
        )
        self._oldest = Gauge(
            "switchboard_consumer_oldest_event_age_seconds",
            "Age of the oldest event that a consumer hasn't acknowledged; 0 when there is none.",
            ["consumer"],
            registry=registry,
        )
        self._dead = Gauge(
            "switchboard_dead_letters",
            "Events in the stream DEAD, which could not be processed and wait for a person.",
            registry=registry,
        )

    async def look(self) -> Findings:
        """What is found now."""
        try:
            found = [
                await consumer_condition(self._client, INGEST_STREAM, name)
                for name in self._durables
            ]
            dead = await stream_messages(self._client, DEAD_STREAM)
        except UnavailableError as error:
            return {COMPONENT: Finding("unknown", f"events can't be counted: {error}")}
        consumers = [one for one in found if one is not None]
        self._dead.set(dead)
        ages = {one.name: self._age_seconds(one) for one in consumers}
        for one in consumers:
            self._pending.labels(one.name).set(one.waiting + one.under_way)
            self._oldest.labels(one.name).set(ages[one.name])
        oldest = max(ages.values(), default=0.0)
        details = {
            "waiting": sum(one.waiting for one in consumers),
            "under_way": sum(one.under_way for one in consumers),
            "oldest_unprocessed_seconds": round(oldest, 1),
            "dead_letters": dead,
        }
        reasons = []
        if oldest > LATE.total_seconds():
            reasons.append(f"the oldest event has waited for {oldest:.0f} s")
        if dead:
            reasons.append(f"could not be processed and wait for `switchboard dead list`: {dead}")
        return {COMPONENT: Finding("degraded" if reasons else "ok", "; ".join(reasons), details)}

    def _age_seconds(self, consumer: ConsumerCondition) -> float:
        if consumer.oldest_at is None:
            return 0.0
        return max((self._clock() - consumer.oldest_at).total_seconds(), 0.0)
