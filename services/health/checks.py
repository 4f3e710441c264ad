"""Asking components how they are, in the background, so that no reader waits or adds load."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = Literal["ok", "degraded", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found.

    Attributes:
        reason: What is wrong, in words; "" when nothing is.
    """

    status: Status
    reason: str = ""


Probe = Callable[[], Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """The last finding about a component.

    Attributes:
        age_seconds: How long ago it was found; None before the first probe has ended.
    """

    status: Status
    reason: str
    age_seconds: float | None


class Monitor:
    """Runs one probe per component again and again, and remembers what it found.

    A finding older than three rounds says nothing about now: it is reported as unknown.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        *,
        interval_seconds: float,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = probes
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._stale_seconds = 3 * (interval_seconds + timeout_seconds)
        self._clock = clock
        self._found: dict[str, tuple[float, Finding]] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, probe in self._probes.items():
                group.create_task(self._repeat(name, probe))

    def report(self) -> dict[str, ComponentReport]:
        """The state of every component."""
        return {name: self._component(name) for name in self._probes}

    def _component(self, name: str) -> ComponentReport:
        if name not in self._found:
            return ComponentReport("unknown", "not probed yet", None)
        at, finding = self._found[name]
        age = self._clock() - at
        if age > self._stale_seconds:
            return ComponentReport("unknown", f"the last probe ended {age:.0f} s ago", age)
        return ComponentReport(finding.status, finding.reason, age)

    async def _repeat(self, name: str, probe: Probe) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    finding = await probe()
            except TimeoutError:
                finding = Finding("down", f"no answer within {self._timeout_seconds:g} s")
            self._found[name] = (self._clock(), finding)
            healthy = finding.status == "ok"
            # What is down is asked more often, so that its recovery shows soon.
            await asyncio.sleep(
                self._interval_seconds if healthy else min(1, self._interval_seconds)
            )


def overall(components: Mapping[str, ComponentReport]) -> Status:
    """The worst state of all."""
    ranking: tuple[Status, ...] = ("down", "unknown", "degraded")
    states = {component.status for component in components.values()}
    return next((status for status in ranking if status in states), "ok")


def webhook_probe(client: httpx.AsyncClient, origin: str) -> Probe:
    """Asks the edge, which knows whether it can store events."""

    async def probe() -> Finding:
        try:
            response = await client.get(f"{origin}/internal/health")
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            return Finding("down", f"no answer: {type(error).__name__}")
        if response.status_code != httpx.codes.OK:
            return Finding("down", "events can be stored neither in the journal nor on disk")
        reasons = [
            text
            for wrong, text in (
                (not answer.get("journal_connected"), "the journal is away"),
                (not answer.get("spill_accepting"), "the spill takes no events"),
                (answer.get("spill_events"), "events wait on disk for the journal"),
                (answer.get("signatures_bypassed"), "signatures are not checked"),
            )
            if wrong
        ]
        return Finding("degraded", "; ".join(reasons)) if reasons else Finding("ok")

    return probe


def grpc_probe(channel: grpc.aio.Channel) -> Probe:
    """Asks the standard health service of a gRPC server."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.

    async def probe() -> Finding:
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest())
        except grpc.aio.AioRpcError as error:
            return Finding("down", f"no answer: {error.code().name}")
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return Finding("down", "it says that it is not serving")
        return Finding("ok")

    return probe
