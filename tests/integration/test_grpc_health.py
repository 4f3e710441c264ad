"""What the standard health service of gRPC says."""

from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    return int(answer.status)


async def test_a_process_that_can_not_serve_is_alive() -> None:
    """Only readiness follows what works: nothing is restarted because its database is away."""
    server = GrpcServer(
        address="127.0.0.1:0", tokens=["token"], service_names=[], add_services=lambda _: None
    )
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{server.port}", "token") as channel:
            assert (await status(channel, ""), await status(channel, "liveness")) == (
                NOT_SERVING,
                SERVING,
            )
            await server.set_serving(True)
            assert await status(channel, "") == SERVING
            await server.set_serving(False)
            assert (await status(channel, ""), await status(channel, "liveness")) == (
                NOT_SERVING,
                SERVING,
            )
    finally:
        await server.stop(0)
