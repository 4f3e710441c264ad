"""Putting together what messaging knows of its own health; only `__main__` does so."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from services.common import configuration
from services.common.grpc_server import GrpcServer
from services.common.monitor import Finding, Findings, Monitor, Probe
from services.messaging.consumers import progress
from services.messaging.consumers.progress import Progress
from services.messaging.grpc_api.health_servicer import HealthServicer
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.ports.reading import MessageReader
from services.messaging.settings import MessagingSettings
from services.messaging.store import condition
from services.messaging.store.activity import SqlActivityReader
from services.messaging.store.condition import DatabaseCondition
from services.messaging.store.database import Database
from services.messaging.usecases.health import (
    ACTIVITY,
    SENDING,
    ActivityProbe,
    BreakerMetrics,
    SendingProbe,
    provider_finding,
    vendor_finding,
)

Ask = Callable[[], Awaitable[Findings]]

_GRACE_SECONDS: Final = 10.0
_READY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """What messaging runs for its health.

    Attributes:
        monitor: To be run.
        servicer: Says what the monitor has found.
        changed: Set whenever a component's status has changed.
        database_ready: Set once the database answers and is migrated; what it is then is seen by
            those who work with it.
    """

    monitor: Monitor
    servicer: HealthServicer
    changed: asyncio.Event
    database_ready: asyncio.Event

    async def serve(self, server: GrpcServer) -> None:
        """Serve until cancelled; the standard health service follows the database.

        Without NATS calls succeed too: what is to be sent waits in the outbox.
        """
        await server.start()
        try:
            while True:
                self.changed.clear()
                database = self.monitor.report()[condition.COMPONENT]
                works = database.status in ("ok", "degraded")
                if works and not self.database_ready.is_set():
                    self.database_ready.set()
                    server.open()
                await server.set_serving(works)
                await self.changed.wait()
        finally:
            await server.stop(_GRACE_SECONDS)


def wire_health(
    settings: MessagingSettings,
    *,
    client: Client,
    database: Database,
    reader: MessageReader,
    durables: Sequence[str],
    providers: Callable[[], Sequence[ProviderStatus]],
    vendors: Callable[[], Sequence[ProviderStatus]],
    lost_webhooks: Callable[[], tuple[int, datetime | None]],
    registry: CollectorRegistry,
    clock: Clock,
) -> Health:
    """Everything of health, made inside the event loop."""
    changed, database_ready = asyncio.Event(), asyncio.Event()

    def waiting(component: str, look: Ask) -> Ask:
        """Ask only what can be asked: a database without tables fails in ways of its own."""

        async def ask() -> Findings:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READY_SECONDS):
                    await database_ready.wait()
            if not database_ready.is_set():
                return {component: Finding("unknown", "the database isn't ready")}
            return await look()

        return ask

    monitor = Monitor(
        [
            Probe(condition.COMPONENT, DatabaseCondition(database).look, 1.5, 1.5),
            Probe(
                progress.COMPONENT,
                Progress(client, durables, clock=clock, registry=registry).look,
                3.0,
                2.0,
            ),
            Probe(
                SENDING,
                waiting(SENDING, SendingProbe(reader, clock=clock, registry=registry).look),
                3.0,
                2.0,
                silent="unknown",
            ),
            Probe(
                ACTIVITY,
                waiting(
                    ACTIVITY,
                    ActivityProbe(SqlActivityReader(database, clock), lost_webhooks).look,
                ),
                15.0,
                10.0,
                silent="unknown",
            ),
            # Nobody is asked for these: they are what this process remembers.
            Probe(
                configuration.COMPONENT,
                _remembering(settings, providers, vendors, BreakerMetrics(registry)),
                1.0,
                1.0,
            ),
        ],
        on_change=changed.set,
    )
    return Health(monitor, HealthServicer(monitor.report), changed, database_ready)


def _remembering(
    settings: MessagingSettings,
    providers: Callable[[], Sequence[ProviderStatus]],
    vendors: Callable[[], Sequence[ProviderStatus]],
    metrics: BreakerMetrics,
) -> Ask:
    configured = configuration.configuration_finding(settings)

    async def look() -> Findings:
        statuses = providers()
        metrics.show(statuses)
        return {
            configuration.COMPONENT: configured,
            **{f"whatsapp_{status.name}": provider_finding(status) for status in statuses},
            **{status.name: vendor_finding(status) for status in vendors()},
        }

    return look
