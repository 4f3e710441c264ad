"""What Prometheus learns of the components."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from services.common.monitor import STATUSES
from services.health.report import Report

_SHOW_SECONDS: Final = 1.0


class ProbeMetrics:
    """How long probes took, and what they found.

    Their labels are names of components, which are few.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "switchboard_probe_seconds",
            "Time that one round of asking about a component took.",
            ["component"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
            registry=registry,
        )
        self._status = Gauge(
            "switchboard_component_status",
            "1 for the status that a component has: ok, degraded, unknown or down.",
            ["component", "status"],
            registry=registry,
        )

    def probed(self, component: str, seconds: float) -> None:
        """Take note of a round."""
        self._seconds.labels(component).observe(seconds)

    async def show(self, report: Report) -> None:
        """Show what is known until cancelled."""
        shown: set[str] = set()
        while True:
            components = report.components()
            for name, found in components.items():
                for status in STATUSES:
                    self._status.labels(name, status).set(found.status == status)
            # Else it would keep the status that it had last, and its alert would go on.
            for name in shown - components.keys():
                for status in STATUSES:
                    self._status.remove(name, status)
            shown = set(components)
            await asyncio.sleep(_SHOW_SECONDS)
