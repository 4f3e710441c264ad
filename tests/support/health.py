"""A running health service, and the components that it asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import httpx
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from switchboard.health.v1 import health_service_pb2_grpc as rpc
from switchboard.messaging.v1 import messaging_service_pb2_grpc as messaging_rpc
from switchboard.messaging.v1 import provider_pb2
from switchboard.messaging.v1.messaging_service_pb2 import GetStatusRequest, GetStatusResponse

from services.common.configuration import configuration_finding
from services.common.grpc_server import GrpcServer
from services.common.http_server import serving_http
from services.common.journal.client import NatsClient
from services.common.monitor import ComponentReport, Monitor, Probe
from services.health.access import Access
from services.health.app import build_app
from services.health.edge import webhook_probe
from services.health.heard import CLOCKS, Heard
from services.health.jetstream import nats_probe
from services.health.messaging import messaging_probe
from services.health.metrics import ProbeMetrics
from services.health.report import Report
from services.health.settings import HealthSettings
from services.messaging.grpc_api.health_servicer import HealthServicer
from tests.support.nats import NatsServer
from tests.support.ports import free_port

TOKEN = "the-grpc-token"
KEY = "a-key-of-sixteen-characters"
WELL: Mapping[str, Any] = {
    "version": "0.1.0",
    "journal_connected": True,
    "spill_accepting": True,
    "spill_events": 0,
    "spill_bytes": 0,
    "signatures_bypassed": False,
    "variables": [{"name": "PUBLIC_HOST", "group": "core", "set": True}],
}
FINE = ComponentReport("ok")


class FakeEdge:
    """What the edge says about itself, on a real socket."""

    def __init__(self) -> None:
        self.says = dict(WELL)
        self.status_code = 200
        self.ahead_seconds = 0.0
        self.asked = 0
        self.app = FastAPI()
        self.app.add_api_route("/internal/health", self._answer, response_model=None)

    async def _answer(self) -> JSONResponse:
        self.asked += 1
        time = datetime.now(UTC) + timedelta(seconds=self.ahead_seconds)
        return JSONResponse({"time": time.isoformat(), **self.says}, self.status_code)


@dataclass
class Around:
    """What health asks."""

    edge: FakeEdge
    edge_url: str
    messaging_port: int
    nats: NatsServer

    def addresses(self) -> dict[str, Any]:
        """As `health` takes them."""
        return {
            "edge": self.edge_url,
            "messaging_address": f"127.0.0.1:{self.messaging_port}",
            "nats_url": self.nats.url,
        }


@contextlib.asynccontextmanager
async def open_around(nats: NatsServer) -> AsyncIterator[Around]:
    """An edge and a broker, and where messaging is to be."""
    edge = FakeEdge()
    async with serving_http(edge.app, host="127.0.0.1", port=0) as port:
        yield Around(edge, f"http://127.0.0.1:{port}", free_port(), nats)


class _Paired(messaging_rpc.MessagingServiceServicer):
    def __init__(self, pairing: provider_pb2.Pairing | None) -> None:
        self._pairing = pairing

    async def GetStatus(  # noqa: N802 - The name is the contract's.
        self, request: GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetStatusResponse:
        return GetStatusResponse(
            provider=provider_pb2.ProviderStatus(name="baileys", pairing=self._pairing)
        )


@contextlib.asynccontextmanager
async def messaging(
    port: int,
    components: Mapping[str, ComponentReport] | None = None,
    *,
    pairing: provider_pb2.Pairing | None = None,
    max_concurrent: int = 256,
) -> AsyncIterator[None]:
    """Messaging's gRPC, as far as it concerns health.

    Args:
        components: What it tells, and may come to tell.
        pairing: What a phone is to be paired with.
        max_concurrent: Calls at once; with none it is as busy as can be.
    """
    told = {"database": FINE} if components is None else components
    servicer = HealthServicer(lambda: told)

    def add_services(server: grpc.aio.Server) -> None:
        rpc.add_HealthServiceServicer_to_server(servicer, server)
        paired = _Paired(pairing)  # type: ignore[abstract]  # The rest is asked by nobody.
        messaging_rpc.add_MessagingServiceServicer_to_server(paired, server)

    server = GrpcServer(
        address=f"127.0.0.1:{port}",
        tokens=[TOKEN],
        service_names=[],
        add_services=add_services,
        max_concurrent=max_concurrent,
    )
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def health(
    *,
    edge: str,
    messaging_address: str,
    nats_url: str,
    token: str = TOKEN,
    open_networks: str = "127.0.0.0/8",
    trusted_proxies: str = "127.0.0.1",
    interval_seconds: float = 0.1,
    timeout_seconds: float = 2.0,
) -> AsyncIterator[httpx.AsyncClient]:
    """Health as its `__main__` wires it, and a client of it."""
    settings = HealthSettings.load(
        {
            "GRPC_TOKEN": token,
            "NATS_URL": nats_url,
            "HEALTH_KEYS": KEY,
            "HEALTH_OPEN_NETWORKS": open_networks,
            "TRUSTED_PROXIES": trusted_proxies,
        }
    )
    registry = CollectorRegistry()
    metrics = ProbeMetrics(registry)
    broker = NatsClient()
    await broker.connect(
        nats_url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,  # type: ignore[arg-type]  # only ever added
        error_cb=_ignore,
    )
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(broker.close)
        asking = await closing.enter_async_context(httpx.AsyncClient())
        heard = Heard()
        probes = {
            "webhook": webhook_probe(asking, edge, heard),
            "messaging": messaging_probe(messaging_address, token, timeout_seconds, heard),
            "nats": nats_probe(broker, heard),
            CLOCKS: heard.clocks,
        }
        monitor = Monitor(
            [Probe(name, ask, interval_seconds, timeout_seconds) for name, ask in probes.items()],
            on_probe=metrics.probed,
        )
        report = Report(monitor, configuration_finding(settings))
        running = asyncio.gather(monitor.run(), metrics.show(report))
        access = Access(settings.open_networks(), settings.keys())
        try:
            async with (
                serving_http(
                    build_app(
                        report,
                        access=access,
                        registry=registry,
                        to_pair=lambda: heard.to_pair,
                        trusted_proxies=settings.trusted_proxies,
                    ),
                    host="127.0.0.1",
                    port=0,
                ) as port,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
            ):
                yield client
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(
    client: httpx.AsyncClient, path: str, holds: Callable[[httpx.Response], bool]
) -> httpx.Response:
    """The first answer that fits.

    Raises:
        TimeoutError: None did for 60 s.
    """
    async with asyncio.timeout(60):
        while not holds(response := await client.get(path)):  # noqa: ASYNC110 - a client can only ask
            await asyncio.sleep(0.02)
    return response


async def statuses(client: httpx.AsyncClient, **wanted: str) -> dict[str, Any]:
    """The detailed report once components, and `status` of all, are as wanted."""

    def fits(response: httpx.Response) -> bool:
        report = response.json()
        found = {name: one["status"] for name, one in report["components"].items()}
        found["status"] = report["status"]
        return all(found.get(name) == status for name, status in wanted.items())

    answer: dict[str, Any] = (await until(client, "/api/health/detailed", fits)).json()
    return answer


async def _ignore(_: Exception) -> None:
    """The broker is made to fail on purpose."""
