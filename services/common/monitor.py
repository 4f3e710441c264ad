"""Asking components how they are, in the background, so that no reader waits or adds load."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

log = structlog.get_logger(__name__)

Status = Literal["ok", "degraded", "down", "unknown"]

STATUSES: Final[tuple[Status, ...]] = ("ok", "degraded", "unknown", "down")
"""From the best to the worst."""

_RETRY_SECONDS: Final = 1.0
_GIVE_UP_SECONDS: Final = 30.0
_NOT_ASKED: Final = "not asked yet"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found out about a component.

    Attributes:
        reason: What is wrong, in words that anyone may read; "" when nothing is.
        details: Numbers and words besides, fit for JSON.
        settled: Whoever says so has made sure of it already: it is believed at once.
        since: Since when it is so, where whoever says so knows; aware, UTC.
    """

    status: Status
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    settled: bool = False
    since: datetime | None = None


Findings = Mapping[str, Finding]
"""What was found, by component."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask about a component, and whatever else it knows of.

    Attributes:
        component: What is down when nobody answers.
        ask: May raise anything and take any time; answers about `component` at least.
        interval_seconds: Pause between two rounds, while all is well.
        silent: What the component is when no answer comes in time; "unknown" where it is another
            component that doesn't answer.
    """

    component: str
    ask: Callable[[], Awaitable[Findings]]
    interval_seconds: float
    timeout_seconds: float
    silent: Status = "down"

    @property
    def stale_seconds(self) -> float:
        """After this a finding says nothing about now."""
        return 3 * (self.interval_seconds + self.timeout_seconds)


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """What is known about a component.

    Attributes:
        since: When it became so; aware, UTC. None before the first probe has ended.
        age_seconds: How long ago it was last looked at; None likewise.
    """

    status: Status
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    since: datetime | None = None
    age_seconds: float | None = None


_NOTHING: Final = Finding("unknown", _NOT_ASKED)


@dataclass(slots=True)
class _Record:
    probe: Probe
    shown: Finding
    since: datetime
    at: float
    contradictions: int = 0


class Monitor:
    """Runs every probe again and again, and remembers what it found.

    One odd finding changes nothing: another status is shown once several findings in a row
    contradict the one shown. Only that a component is well is believed at once at first.

    Args:
        confirmations: How many findings in a row it takes.
        on_change: Called when what is shown about a component has changed its status.
        on_probe: Called with component and seconds after each round of a probe.
        clock: Seconds that never jump.
        now: Aware, UTC.
    """

    def __init__(
        self,
        probes: Iterable[Probe],
        *,
        confirmations: int = 2,
        on_change: Callable[[], None] = lambda: None,
        on_probe: Callable[[str, float], None] = lambda component, seconds: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._probes = tuple(probes)
        self._confirmations = confirmations
        self._on_change = on_change
        self._on_probe = on_probe
        self._clock = clock
        self._now = now
        self._records: dict[str, _Record] = {}
        self._asking: dict[str, tuple[float, asyncio.Task[Findings]]] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for probe in self._probes:
                    group.create_task(self._repeat(probe))
        finally:
            asking = [task for _, task in self._asking.values()]
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def report(self) -> dict[str, ComponentReport]:
        """What is known about every component."""
        found = {probe.component: ComponentReport("unknown", _NOT_ASKED) for probe in self._probes}
        return found | {name: self._component(record) for name, record in self._records.items()}

    def _component(self, record: _Record) -> ComponentReport:
        age = self._clock() - record.at
        shown = record.shown
        if age > record.probe.stale_seconds:
            reason = f"last looked at {age:.0f} s ago"
            return ComponentReport("unknown", reason, {}, record.since, age)
        return ComponentReport(shown.status, shown.reason, shown.details, record.since, age)

    async def _repeat(self, probe: Probe) -> None:
        while True:
            began = self._clock()
            findings = await self._findings(probe)
            self._on_probe(probe.component, self._clock() - began)
            certain = [self._note(probe, name, found) for name, found in findings.items()]
            pause = probe.interval_seconds
            # What is in doubt or down is asked again soon, so that its change shows soon.
            if not all(certain) or findings[probe.component].status == "down":
                pause = min(_RETRY_SECONDS, pause)
            # Spread, or replicas that started together would ask together for ever.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def _findings(self, probe: Probe) -> Findings:
        try:
            findings = await self._asked(probe)
        except TimeoutError:
            reason = f"no answer within {probe.timeout_seconds:g} s"
            findings = {probe.component: Finding(probe.silent, reason)}
        except Exception as error:
            log.exception("a probe failed", component=probe.component)
            findings = {
                probe.component: Finding("unknown", f"asking failed: {type(error).__name__}")
            }
        heard_of = {name for name, record in self._records.items() if record.probe is probe}
        missing = heard_of - findings.keys()
        if findings[probe.component].status in ("down", "unknown"):
            unheard = Finding("unknown", f"{probe.component} can't be asked")
            return {**findings, **dict.fromkeys(missing, unheard)}
        for name in missing:
            del self._records[name]
        return findings

    async def _asked(self, probe: Probe) -> Findings:
        """What the probe says, in time.

        One that takes longer goes on: breaking off a query again and again would cost connections,
        and asking anew beside it would pile up. The next round waits for the same answer.
        """
        if probe.component not in self._asking:
            asked = asyncio.ensure_future(probe.ask())
            self._asking[probe.component] = self._clock(), asked
        began, task = self._asking[probe.component]
        await asyncio.wait([task], timeout=probe.timeout_seconds)
        if task.done() or self._clock() - began > _GIVE_UP_SECONDS:
            del self._asking[probe.component]
        if task.done():
            return task.result()
        if probe.component not in self._asking:
            task.cancel()
        raise TimeoutError

    def _note(self, probe: Probe, name: str, finding: Finding) -> bool:
        """Take a finding in; returns whether it is what is shown."""
        at = self._clock()
        record = self._records.get(name)
        if record is None:
            record = _Record(probe, _NOTHING, finding.since or self._now(), at)
            self._records[name] = record
            if finding.status == "ok":
                record.shown = finding
                self._on_change()
                return True
        record.at = at
        if finding.status == record.shown.status:
            record.shown, record.contradictions = finding, 0
            return True
        record.contradictions += 1
        if record.contradictions < self._confirmations and not finding.settled:
            return False
        record.shown, record.contradictions = finding, 0
        record.since = finding.since or self._now()
        self._changed(name, finding)
        return True

    def _changed(self, name: str, finding: Finding) -> None:
        write = log.warning if finding.status in ("degraded", "down") else log.info
        write("component " + finding.status, component=name, reason=finding.reason)
        self._on_change()


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of several; "ok" of none."""
    return max(statuses, key=STATUSES.index, default="ok")
