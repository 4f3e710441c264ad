"""Whether this edge can ask messaging, found out before a caller or an API client needs it."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
from switchboard.health.v1.health_service_pb2 import GetHealthRequest
from switchboard.health.v1.health_service_pb2_grpc import HealthServiceStub

from services.common.monitor import ComponentReport, Finding, Findings, Monitor, Probe

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub

_MESSAGING: Final = "messaging"
_CALL_SECONDS: Final = 1.5
_TIMEOUT_SECONDS: Final = 2.0
_TROUBLES: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.UNAVAILABLE: "it can't reach messaging",
    grpc.StatusCode.DEADLINE_EXCEEDED: "messaging doesn't answer it in time",
    grpc.StatusCode.UNAUTHENTICATED: "messaging refuses its GRPC_TOKEN",
}


class MessagingProbe:
    """Asks messaging for its health again and again, by the edge's own channel and token.

    What it answers is health's matter; here it matters only that it does.
    """

    def __init__(self, channel: grpc.aio.Channel, *, interval_seconds: float = 3.0) -> None:
        self._stub: HealthServiceAsyncStub = HealthServiceStub(channel)
        self._monitor = Monitor([Probe(_MESSAGING, self._ask, interval_seconds, _TIMEOUT_SECONDS)])

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._monitor.run()

    @property
    def trouble(self) -> str:
        """Why calls fail now, in words; "" while they don't, or nobody knows yet."""
        found = self._found()
        return found.reason if found.status == "down" else ""

    @property
    def trouble_since(self) -> datetime | None:
        """Since when they do; aware, UTC."""
        found = self._found()
        return found.since if found.status == "down" else None

    def _found(self) -> ComponentReport:
        return self._monitor.report()[_MESSAGING]

    async def _ask(self) -> Findings:
        try:
            await self._stub.GetHealth(GetHealthRequest(), timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            reason = _TROUBLES.get(code, f"messaging answers it with {code.name}")
            return {_MESSAGING: Finding("down", reason)}
        return {_MESSAGING: Finding("ok")}
