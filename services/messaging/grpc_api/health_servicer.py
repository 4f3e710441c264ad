"""`switchboard.health.v1.HealthService`."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import grpc.aio
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc

from services.common.metrics import version
from services.common.monitor import ComponentReport, Status

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["HealthService"].full_name

_STATUSES: Final[Mapping[Status, pb.Status.ValueType]] = {
    "ok": pb.STATUS_OK,
    "degraded": pb.STATUS_DEGRADED,
    "down": pb.STATUS_DOWN,
    "unknown": pb.STATUS_UNKNOWN,
}


class HealthServicer(rpc.HealthServiceServicer):
    """Answers from what was found out in the background.

    Args:
        report: What is known now.
    """

    def __init__(self, report: Callable[[], Mapping[str, ComponentReport]]) -> None:
        self._report = report

    async def GetHealth(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetHealthRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetHealthResponse:
        components = [_component(name, found) for name, found in self._report().items()]
        return pb.GetHealthResponse(
            version=version(), components=components, time=_timestamp(datetime.now(UTC))
        )


def _component(name: str, found: ComponentReport) -> pb.Component:
    details = Struct()
    json_format.ParseDict(dict(found.details), details)
    return pb.Component(
        name=name,
        status=_STATUSES[found.status],
        reason=found.reason,
        since=_timestamp(found.since) if found.since else None,
        details=details,
    )


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
