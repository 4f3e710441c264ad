"""One way to build a gRPC server: authentication, errors, health and reflection included."""

from collections.abc import Callable, Collection, Iterable, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from services.common.grpc_guard import Guard
from services.common.tracing import NoTracing, Tracing

_CONNECTION_MILLISECONDS = 300_000
_LAST_CALLS_MILLISECONDS = 3_600_000
# More than the guard lets through in all. A call whose request doesn't come never gets to it.
_MAX_CALLS_OF_A_CONNECTION = 1_000
_LIVENESS = "liveness"


class GrpcServer:
    """A gRPC server with token authentication, errors, health and reflection.

    `add_services` receives the `grpc.aio.Server` to register servicers on; their full names
    go into `service_names`.

    Args:
        open_before: The services that, beside health and reflection, answer before `open` is
            called; None: all of them do.
    """

    def __init__(
        self,
        *,
        address: str,
        tokens: Sequence[str],
        service_names: Iterable[str],
        add_services: Callable[[grpc.aio.Server], None],
        max_concurrent: int = 256,
        max_seconds: float = 30.0,
        max_message_bytes: int = 1024 * 1024,
        registry: CollectorRegistry | None = None,
        tracing: Tracing | None = None,
        open_before: Collection[str] | None = None,
    ) -> None:
        self._guard = Guard(
            tokens, max_concurrent, max_seconds, registry, tracing or NoTracing(), open_before
        )
        self._server = grpc.aio.server(
            interceptors=[self._guard],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_concurrent_streams", _MAX_CALLS_OF_A_CONNECTION),
                ("grpc.so_reuseport", 0),
                # Clients then look their addresses up again, and find replicas that are new.
                ("grpc.max_connection_age_ms", _CONNECTION_MILLISECONDS),
                # What is still open then is a stream, which is begun again where it was, or an
                # answer that nobody takes.
                ("grpc.max_connection_age_grace_ms", _LAST_CALLS_MILLISECONDS),
            ],
        )
        self._names = ["", *service_names]
        self._health = health.aio.HealthServicer()
        add_services(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*self._names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        self.port = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls. Health stays NOT_SERVING until `set_serving`.

        Under the name `liveness` it says SERVING all the time: whoever hears it knows that this
        process answers, and should not be restarted for what is wrong elsewhere.
        """
        await self.set_serving(False)
        await self._health.set(_LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    def open(self) -> None:
        """Let every service answer from now on."""
        self._guard.is_open = True

    async def set_serving(self, serving: bool) -> None:
        """Say by the standard health service whether calls will succeed."""
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if serving else response.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self, grace_seconds: float) -> None:
        """Report NOT_SERVING, refuse new calls, and give open ones `grace_seconds`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
        await self._guard.drained(grace_seconds)
