"""How each component is asked."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import grpc.aio
import httpx
from google.protobuf import json_format
from nats.aio.client import Client
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc
from switchboard.messaging.v1.messaging_service_pb2 import GetStatusRequest, GetStatusResponse
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from services.common import configuration
from services.common.errors import UnavailableError
from services.common.journal.condition import JetStreamCondition, jetstream_condition
from services.common.monitor import Finding, Findings, Status
from services.health.heard import Heard, Pairing

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

WEBHOOK: Final = "webhook"
MESSAGING: Final = "messaging"
NATS: Final = "nats"

_NEARLY_FULL: Final = 0.8

_SILENT: Final = "no answer in time"
_UNREACHABLE: Final = "it can't be reached"
_REFUSES: Final = "it answers with an error; its log says which"
_WITHOUT_ANSWER: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: _SILENT,
    grpc.StatusCode.UNAVAILABLE: _UNREACHABLE,
}

_STATUSES: Final[Mapping[int, Status]] = {
    pb.STATUS_OK: "ok",
    pb.STATUS_DEGRADED: "degraded",
    pb.STATUS_DOWN: "down",
}

Ask = Callable[[], Awaitable[Findings]]


def configuration_of(service: str) -> str:
    """The component that says what a service was told."""
    return f"{configuration.COMPONENT}_{service}"


async def addresses_of(origin: str) -> Sequence[str]:
    """An origin for each address that its host's name stands for, or itself alone.

    Of one family: a name may stand for the same machine in both.
    """
    url = httpx.URL(origin)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:
        return [origin]
    old = {str(address[0]) for family, *_, address in found if family == socket.AF_INET}
    hosts = old or {str(address[0]) for _, *_, address in found}
    return [str(url.copy_with(host=host)) for host in sorted(hosts)] if len(hosts) > 1 else [origin]


def webhook_probe(
    client: httpx.AsyncClient,
    origin: str,
    heard: Heard,
    *,
    addresses: Callable[[str], Awaitable[Sequence[str]]] = addresses_of,
) -> Ask:
    """Asks the edge on its internal port; it knows whether it can store events.

    Args:
        addresses: Finds the replicas that `origin` stands for; each is asked.
    """

    async def ask() -> Findings:
        replicas = await addresses(origin)
        answers = await asyncio.gather(*(_ask_edge(client, replica, heard) for replica in replicas))
        findings = {WEBHOOK: _together([finding for finding, _ in answers])}
        if variables := next((variables for _, variables in answers if variables), None):
            findings[configuration_of(WEBHOOK)] = Finding("ok", details={"variables": variables})
        return findings

    return ask


async def _ask_edge(client: httpx.AsyncClient, origin: str, heard: Heard) -> tuple[Finding, object]:
    """How one replica is, and what it says of its variables."""
    try:
        response = await client.get(f"{origin.rstrip('/')}/internal/health")
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        return Finding("down", _without_answer(error)), None
    if not isinstance(answer, dict):
        return Finding("down", "its answer makes no sense"), None
    heard.journal(str(answer.get("journal_trouble") or ""))
    with contextlib.suppress(ValueError):
        heard.clock(WEBHOOK, datetime.fromisoformat(str(answer.get("time"))))
    details = {
        name: answer.get(name)
        for name in ("version", "journal_connected", "spill_events", "spill_bytes")
    }
    return _edge_finding(response.status_code, answer, details), answer.get("variables")


def _without_answer(error: Exception) -> str:
    match error:
        case httpx.TimeoutException():
            return _SILENT
        case httpx.TransportError():
            return _UNREACHABLE
        case _:
            return "its answer makes no sense"


def _together(found: Sequence[Finding]) -> Finding:
    """Several replicas as one: down when all of them are, for each takes every request."""
    if len(found) == 1:
        return found[0]
    reasons = Counter(finding.reason for finding in found if finding.reason)
    details = [finding.details for finding in found if finding.details]
    down = sum(finding.status == "down" for finding in found)
    status: Status = "down" if down == len(found) else "degraded" if reasons else "ok"
    return Finding(
        status,
        "; ".join(f"{count} of {len(found)}: {reason}" for reason, count in reasons.items()),
        {
            "replicas": len(found),
            "replicas_down": down,
            "version": ", ".join(sorted({str(one["version"]) for one in details})),
            "journal_connected": all(bool(one["journal_connected"]) for one in details),
            **{
                name: sum(_number(one[name]) for one in details)
                for name in ("spill_events", "spill_bytes")
            },
        },
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _edge_finding(
    status_code: int, answer: Mapping[str, object], details: Mapping[str, object]
) -> Finding:
    if status_code != httpx.codes.OK:
        reason = "events can be stored neither in the journal nor on disk"
        return Finding("down", reason, details)
    waiting = answer.get("spill_events")
    reasons = [
        text
        for wrong, text in (
            (not answer.get("journal_connected"), "the journal is away"),
            (not answer.get("spill_accepting"), "the spill takes no events"),
            (waiting, f"events that wait on disk for the journal: {waiting}"),
            (answer.get("signatures_bypassed"), "signatures are not checked"),
        )
        if wrong
    ]
    return Finding("degraded" if reasons else "ok", "; ".join(reasons), details)


def messaging_probe(channel: grpc.aio.Channel, timeout_seconds: float, heard: Heard) -> Ask:
    """Asks messaging, which tells also of the database, its providers and vendors.

    Args:
        timeout_seconds: Deadline of one call.
    """
    stub: HealthServiceAsyncStub = rpc.HealthServiceStub(channel)
    status: MessagingServiceAsyncStub = MessagingServiceStub(channel)

    async def ask() -> Findings:
        try:
            answer = await stub.GetHealth(pb.GetHealthRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return {MESSAGING: Finding("down", "it refuses our GRPC_TOKEN")}
            return {MESSAGING: Finding("down", _WITHOUT_ANSWER.get(error.code(), _REFUSES))}
        pairings = {}
        if any(_needs_pairing(component) for component in answer.components):
            # Never a part of what is found out, which others see too.
            with contextlib.suppress(grpc.aio.AioRpcError):
                pairings = _pairings(
                    await status.GetStatus(GetStatusRequest(), timeout=timeout_seconds)
                )
        heard.pairings(pairings)
        if answer.HasField("time"):
            heard.clock(MESSAGING, answer.time.ToDatetime(tzinfo=UTC))
        return {
            MESSAGING: Finding("ok", details={"version": answer.version}),
            **{_name(component.name): _relayed(component) for component in answer.components},
        }

    return ask


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


def nats_probe(client: Client, heard: Heard, *, storage_max_bytes: int = 0) -> Ask:
    """Asks the API of JetStream, and believes the edge where that can't store anything.

    Args:
        storage_max_bytes: What the server may store, where its account has no limit; 0 when that
            isn't known.
    """

    async def ask() -> Findings:
        try:
            condition = await jetstream_condition(client)
            if not condition.storage_max_bytes:
                condition = replace(condition, storage_max_bytes=storage_max_bytes)
        except UnavailableError as error:
            return {NATS: Finding("down", str(error))}
        if trouble := heard.journal_trouble:
            return {NATS: Finding("down", trouble, _details(condition))}
        full = [
            f"{name} is {used / most:.0%} full"
            for name, used, most in (
                ("the storage", condition.storage_bytes, condition.storage_max_bytes),
                *(
                    (f"the stream {one.name}", one.bytes, one.max_bytes)
                    for one in condition.streams
                ),
            )
            if most and used / most >= _NEARLY_FULL
        ]
        finding = Finding("degraded" if full else "ok", "; ".join(full), _details(condition))
        return {NATS: finding}

    return ask


def _details(condition: JetStreamCondition) -> dict[str, object]:
    return {
        "round_trip_seconds": round(condition.round_trip_seconds, 6),
        "storage_bytes": condition.storage_bytes,
        "storage_max_bytes": condition.storage_max_bytes,
        "streams": {
            stream.name: {
                "messages": stream.messages,
                "bytes": stream.bytes,
                "max_bytes": stream.max_bytes,
            }
            for stream in condition.streams
        },
    }


def _whole(value: object) -> object:
    """Numbers as they were before `Struct`, which knows only floating point."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
