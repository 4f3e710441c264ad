"""How messaging is asked, which tells also of what only it sees."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Final

import grpc.aio
from google.protobuf import json_format
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc
from switchboard.messaging.v1.messaging_service_pb2 import GetStatusRequest, GetStatusResponse
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from services.common import configuration
from services.common.grpc_client import open_channel
from services.common.monitor import STATUSES, Finding, Findings, Status
from services.health.heard import Heard, Pairing
from services.health.probes import MESSAGING, SILENT, UNREACHABLE, Ask, configuration_of
from services.health.replicas import counted, targets_of, together

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

_REFUSES: Final = "it answers with an error; its log says which"
_WITHOUT_ANSWER: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: SILENT,
    grpc.StatusCode.UNAVAILABLE: UNREACHABLE,
    grpc.StatusCode.UNAUTHENTICATED: "it refuses our GRPC_TOKEN",
}

_STATUSES: Final[Mapping[int, Status]] = {
    pb.STATUS_OK: "ok",
    pb.STATUS_DEGRADED: "degraded",
    pb.STATUS_DOWN: "down",
}


@dataclass(frozen=True, slots=True)
class _Replica:
    """What one replica of messaging says.

    Attributes:
        components: What only messaging sees.
        ahead: Seconds by which its clock is ahead of health's; None where it doesn't tell.
    """

    finding: Finding
    components: Findings = field(default_factory=dict)
    ahead: float | None = None
    pairings: Mapping[str, Pairing] = field(default_factory=dict)


def messaging_probe(
    address: str,
    token: str,
    timeout_seconds: float,
    heard: Heard,
    *,
    addresses: Callable[[str], Awaitable[Sequence[str]]] = targets_of,
) -> Ask:
    """Asks messaging, which tells also of the database, its providers and vendors.

    Args:
        address: `host:port`.
        timeout_seconds: Deadline of one call.
        addresses: Finds the replicas that `address` stands for; each is asked.
    """
    known: Sequence[str] = ()

    async def ask() -> Findings:
        nonlocal known
        # Kubernetes leaves out of a name whoever isn't ready: without a database all of them.
        known = await addresses(address) or known or [address]
        replicas = await asyncio.gather(
            *(_asked(target, token, timeout_seconds, heard) for target in known)
        )
        found = [replica.finding for replica in replicas]
        heard.clock(MESSAGING, [one.ahead for one in replicas if one.ahead is not None])
        answers = [replica for replica in replicas if replica.finding.status == "ok"]
        if answers:
            heard.pairings(
                {name: one for answer in answers for name, one in answer.pairings.items()}
            )
        told: dict[str, list[Finding]] = {}
        for answer in answers:
            for name, finding in answer.components.items():
                told.setdefault(name, []).append(finding)
        # What the rest says is taken for the whole at once only when nobody is missing.
        all_answered = len(answers) == len(replicas)
        return {
            MESSAGING: together(found, counted(found)),
            **{name: _as_one(some, settled=all_answered) for name, some in told.items()},
        }

    return ask


async def _asked(target: str, token: str, timeout_seconds: float, heard: Heard) -> _Replica:
    # A channel for each question takes two milliseconds, and none is left of who is gone.
    async with open_channel(target, token) as channel:
        stub: HealthServiceAsyncStub = rpc.HealthServiceStub(channel)
        status: MessagingServiceAsyncStub = MessagingServiceStub(channel)
        try:
            answer = await stub.GetHealth(pb.GetHealthRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            return _Replica(Finding("down", _WITHOUT_ANSWER.get(error.code(), _REFUSES)))
        ahead = heard.ahead(answer.time.ToDatetime(tzinfo=UTC)) if answer.HasField("time") else None
        pairings: Mapping[str, Pairing] = {}
        if any(_needs_pairing(component) for component in answer.components):
            # Never a part of what is found out, which others see too.
            with contextlib.suppress(grpc.aio.AioRpcError):
                pairings = _pairings(
                    await status.GetStatus(GetStatusRequest(), timeout=timeout_seconds)
                )
        return _Replica(
            Finding("ok", details={"version": answer.version}),
            {_name(component.name): _relayed(component) for component in answer.components},
            ahead,
            pairings,
        )


def _as_one(found: Sequence[Finding], *, settled: bool) -> Finding:
    """What several replicas say of a component, with the numbers of the one that says the worst."""
    worst = max(found, key=lambda one: STATUSES.index(one.status))
    return replace(together(found, dict(worst.details)), settled=settled)


def _needs_pairing(component: pb.Component) -> bool:
    # Asking the map for a name that it doesn't have would add it.
    fields = component.details.fields
    return "needs_pairing" in fields and fields["needs_pairing"].bool_value


def _pairings(answer: GetStatusResponse) -> dict[str, Pairing]:
    return {
        f"whatsapp_{one.name}": Pairing(one.pairing.qr, one.pairing.code)
        for one in (answer.provider, answer.fallback)
        if one.HasField("pairing")
    }


def _name(name: str) -> str:
    return configuration_of(MESSAGING) if name == configuration.COMPONENT else name


def _relayed(component: pb.Component) -> Finding:
    details = json_format.MessageToDict(component.details)
    return Finding(
        _STATUSES.get(component.status, "unknown"),
        component.reason,
        {name: _whole(value) for name, value in details.items()},
        settled=True,
        since=component.since.ToDatetime(tzinfo=UTC) if component.HasField("since") else None,
    )


def _whole(value: object) -> object:
    """Numbers as they were before `Struct`, which knows only floating point."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
