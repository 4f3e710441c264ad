"""From what the monitor found to what is told: which component matters how much, and all in all."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from services.common import configuration
from services.common.metrics import version
from services.common.monitor import ComponentReport, Finding, Monitor, Status, worst
from services.health.probes import MESSAGING, NATS, WEBHOOK, configuration_of

CRITICAL: Final = frozenset({WEBHOOK, MESSAGING, "database", NATS})
"""Without these no event is taken in and worked on. Trouble with anything else (a provider, a
vendor, work that is late) leaves the rest working: it makes the whole degraded, and never down."""

Components = Mapping[str, ComponentReport]


class Report:
    """What is known now, made from the monitor's memory: nobody is asked.

    Args:
        configured: What health itself was told.
    """

    def __init__(self, monitor: Monitor, configured: Finding) -> None:
        self._monitor = monitor
        self._configured = configured
        self._began = time.monotonic()

    def components(self) -> Components:
        """Every component; what the services were told is one of them."""
        found = self._monitor.report()
        told = {
            service: found.pop(configuration_of(service))
            for service in (WEBHOOK, MESSAGING)
            if configuration_of(service) in found
        }
        own = ComponentReport(
            self._configured.status, self._configured.reason, self._configured.details, None, 0.0
        )
        found[configuration.COMPONENT] = _joined({**told, "health": own}, own)
        return found

    def basic(self) -> dict[str, Any]:
        """The status of all and of each, for anyone."""
        components = self.components()
        return {
            "status": overall(components),
            "components": {name: found.status for name, found in components.items()},
        }

    def detailed(self) -> dict[str, Any]:
        """Everything that is known."""
        components = self.components()
        return {
            "status": overall(components),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "version": version(),
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "components": {
                name: {
                    "status": found.status,
                    "critical": name in CRITICAL,
                    "reason": found.reason,
                    "since": found.since.isoformat(timespec="seconds") if found.since else None,
                    "age_seconds": None
                    if found.age_seconds is None
                    else round(found.age_seconds, 3),
                    "details": found.details,
                }
                for name, found in components.items()
            },
        }

    def unready(self) -> dict[str, str]:
        """Why Switchboard can't do its work now, by component; empty when it can."""
        return {
            name: found.reason
            for name, found in self.components().items()
            if name in CRITICAL and found.status in ("down", "unknown")
        }


def overall(components: Components) -> Status:
    """The state of the whole: the worst of what is critical, at most degraded by the rest."""
    return worst(
        found.status if name in CRITICAL or found.status == "ok" else "degraded"
        for name, found in components.items()
    )


def _joined(told: Components, own: ComponentReport) -> ComponentReport:
    """Who reads which variable, and whether it is set somewhere; no values."""
    variables: dict[str, dict[str, Any]] = {}
    for service, found in told.items():
        said = found.details.get("variables")
        for variable in said if isinstance(said, list) else ():
            one = variables.setdefault(
                str(variable["name"]),
                {"group": variable["group"], "set": False, "read_by": []},
            )
            one["set"] = one["set"] or bool(variable["set"])
            one["read_by"].append(service)
    reasons = [
        found.reason if found.reason.startswith(service) else f"{service}: {found.reason}"
        for service, found in told.items()
        if found.reason
    ]
    oldest = max((found.age_seconds or 0.0 for found in told.values()), default=None)
    return ComponentReport(
        worst(found.status for found in told.values()),
        "; ".join(reasons),
        {"variables": dict(sorted(variables.items())), "app_env": own.details["app_env"]},
        None,
        oldest,
    )
