"""How each component is asked."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Final

import grpc.aio
import httpx
from google.protobuf import json_format
from nats.aio.client import Client
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc

from services.common import configuration
from services.common.errors import UnavailableError
from services.common.journal.condition import JetStreamCondition, jetstream_condition
from services.common.monitor import Finding, Findings, Status

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub

WEBHOOK: Final = "webhook"
MESSAGING: Final = "messaging"
NATS: Final = "nats"

_NEARLY_FULL: Final = 0.8

_STATUSES: Final[Mapping[int, Status]] = {
    pb.STATUS_OK: "ok",
    pb.STATUS_DEGRADED: "degraded",
    pb.STATUS_DOWN: "down",
}

Ask = Callable[[], Awaitable[Findings]]


def configuration_of(service: str) -> str:
    """The component that says what a service was told."""
    return f"{configuration.COMPONENT}_{service}"


def webhook_probe(client: httpx.AsyncClient, origin: str) -> Ask:
    """Asks the edge on its internal port; it knows whether it can store events."""

    async def ask() -> Findings:
        try:
            response = await client.get(f"{origin}/internal/health")
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            return {WEBHOOK: Finding("down", f"no answer: {type(error).__name__}")}
        if not isinstance(answer, dict):
            return {WEBHOOK: Finding("down", "its answer makes no sense")}
        details = {
            name: answer.get(name)
            for name in ("version", "journal_connected", "spill_events", "spill_bytes")
        }
        findings = {WEBHOOK: _edge_finding(response.status_code, answer, details)}
        if variables := answer.get("variables"):
            findings[configuration_of(WEBHOOK)] = Finding("ok", details={"variables": variables})
        return findings

    return ask


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


def messaging_probe(channel: grpc.aio.Channel, timeout_seconds: float) -> Ask:
    """Asks messaging, which tells also of the database, its providers and vendors.

    Args:
        timeout_seconds: Deadline of one call.
    """
    stub: HealthServiceAsyncStub = rpc.HealthServiceStub(channel)

    async def ask() -> Findings:
        try:
            answer = await stub.GetHealth(pb.GetHealthRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return {MESSAGING: Finding("down", "it refuses our GRPC_TOKEN")}
            return {MESSAGING: Finding("down", f"no answer: {error.code().name}")}
        return {
            MESSAGING: Finding("ok", details={"version": answer.version}),
            **{_name(component.name): _relayed(component) for component in answer.components},
        }

    return ask


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


def nats_probe(client: Client) -> Ask:
    """Asks the API of JetStream."""

    async def ask() -> Findings:
        try:
            condition = await jetstream_condition(client)
        except UnavailableError as error:
            return {NATS: Finding("down", str(error))}
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
