"""Whether the parts of the stack do their work; each probe answers within two seconds."""

import contextlib
from typing import Any

import grpc.aio
import httpx
import nats.errors
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.journal.client import NatsClient

_SECONDS = 2.0
_DIRECT = [("grpc.enable_http_proxy", 0)]


async def http_answers(url: str, *, true: str | None = None) -> bool:
    """Whether `url` answers 200, and with `true`, whether that field of its JSON is true."""
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            response = await client.get(url)
    except httpx.HTTPError:
        return False
    if response.status_code != httpx.codes.OK:
        return False
    return true is None or response.json().get(true) is True


async def grpc_serves(address: str) -> bool:
    """Whether the standard health service at `address` says SERVING."""
    async with grpc.aio.insecure_channel(address, options=_DIRECT) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def jetstream_answers(url: str) -> bool:
    """Whether NATS at `url` takes our credentials and has JetStream."""

    async def ignore(_: Exception) -> None:
        """A server that doesn't listen yet is no news."""

    client = NatsClient()
    try:
        await client.connect(
            url, allow_reconnect=False, connect_timeout=2, reconnect_time_wait=0, error_cb=ignore
        )
        await client.jetstream(timeout=_SECONDS).account_info()
    except (OSError, nats.errors.Error):
        return False
    finally:
        with contextlib.suppress(nats.errors.Error):
            await client.close()
    return True
