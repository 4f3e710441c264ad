"""Health over real sockets: an edge and a gRPC server that come, suffer and go."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from services.common.grpc_server import GrpcServer
from services.common.http_server import serving_http
from services.health.app import build_app
from services.health.checks import Finding, Monitor, grpc_probe, webhook_probe
from tests.support.nats import free_port

WELL: dict[str, Any] = {
    "journal_connected": True,
    "spill_accepting": True,
    "spill_events": 0,
    "signatures_bypassed": False,
}


class Edge:
    """What the edge says about itself, on a real socket."""

    def __init__(self) -> None:
        self.says = dict(WELL)
        self.status_code = 200
        self.app = FastAPI()
        self.app.add_api_route("/internal/health", self._answer, response_model=None)

    async def _answer(self) -> JSONResponse:
        return JSONResponse(self.says, status_code=self.status_code)


@contextlib.asynccontextmanager
async def messaging(port: int) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(
        address=f"127.0.0.1:{port}",
        tokens=["token"],
        service_names=[],
        add_services=lambda _: None,
    )
    await server.start()
    try:
        await server.set_serving(True)
        yield server
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def health(edge_port: int, grpc_port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        httpx.AsyncClient() as asking,
        grpc.aio.insecure_channel(
            f"127.0.0.1:{grpc_port}", options=[("grpc.max_reconnect_backoff_ms", 100)]
        ) as channel,
    ):
        monitor = Monitor(
            {
                "webhook": webhook_probe(asking, f"http://127.0.0.1:{edge_port}"),
                "messaging": grpc_probe(channel),
            },
            interval_seconds=0.05,
            timeout_seconds=1,
        )
        task = asyncio.create_task(monitor.run())
        try:
            async with (
                serving_http(build_app(monitor), host="127.0.0.1", port=0) as port,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
            ):
                yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(
    client: httpx.AsyncClient, path: str, holds: Callable[[httpx.Response], bool]
) -> httpx.Response:
    async with asyncio.timeout(10):
        while not holds(response := await client.get(path)):  # noqa: ASYNC110 - a client can only ask
            await asyncio.sleep(0.02)
    return response


async def test_ready_only_while_every_component_is() -> None:
    """Readiness follows the components, names what is missing, and comes back by itself."""
    edge, grpc_port = Edge(), free_port()
    async with (
        serving_http(edge.app, host="127.0.0.1", port=0) as edge_port,
        health(edge_port, grpc_port) as client,
    ):
        response = await until(
            client, "/api/health/readiness", lambda r: set(r.json()["reasons"]) == {"messaging"}
        )
        assert response.status_code == 503
        async with messaging(grpc_port) as server:
            await until(client, "/api/health/readiness", lambda r: r.status_code == 200)
            await server.set_serving(False)
            response = await until(client, "/api/health/readiness", lambda r: r.status_code == 503)
            assert response.json()["reasons"] == {"messaging": "it says that it is not serving"}
        await until(client, "/api/health/readiness", lambda r: "no answer" in r.text)
        assert (await client.get("/api/health/liveness")).status_code == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"journal_connected": False}, "the journal is away"),
        ({"spill_accepting": False}, "the spill takes no events"),
        ({"spill_events": 3}, "events wait on disk for the journal"),
        ({"signatures_bypassed": True}, "signatures are not checked"),
    ],
)
async def test_an_edge_in_trouble_is_degraded_but_ready(
    change: dict[str, Any], reason: str
) -> None:
    """An edge that still takes events stays ready, and health says what is wrong with it."""
    edge, grpc_port = Edge(), free_port()
    edge.says |= change
    async with (
        messaging(grpc_port),
        serving_http(edge.app, host="127.0.0.1", port=0) as edge_port,
        health(edge_port, grpc_port) as client,
    ):
        await until(client, "/api/health/readiness", lambda r: r.status_code == 200)
        report = (await client.get("/api/health")).json()
        assert report["status"] == "degraded"
        assert report["components"]["webhook"]["reason"] == reason
        assert report["components"]["webhook"]["age_seconds"] < 10


async def test_an_edge_that_refuses_events_is_not_ready() -> None:
    """Events that would be lost are the worst that can happen to the edge."""
    edge, grpc_port = Edge(), free_port()
    edge.status_code = 503
    async with (
        messaging(grpc_port),
        serving_http(edge.app, host="127.0.0.1", port=0) as edge_port,
        health(edge_port, grpc_port) as client,
    ):
        response = await until(
            client, "/api/health/readiness", lambda r: set(r.json()["reasons"]) == {"webhook"}
        )
        assert "neither" in response.json()["reasons"]["webhook"]


async def test_a_component_that_hangs_is_down_not_waited_for() -> None:
    """One component without an answer delays neither the others nor the report."""

    async def hang() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def well() -> Finding:
        return Finding("ok")

    monitor = Monitor({"stuck": hang, "well": well}, interval_seconds=0.05, timeout_seconds=0.1)
    task = asyncio.create_task(monitor.run())
    async with asyncio.timeout(10):
        while monitor.report()["stuck"].status != "down":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    assert monitor.report()["well"].status == "ok"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_old_finding_is_unknown() -> None:
    """What was true long ago is never shown as the state of now."""
    now = 0.0

    async def well() -> Finding:
        return Finding("ok")

    monitor = Monitor({"well": well}, interval_seconds=5, timeout_seconds=1, clock=lambda: now)
    assert monitor.report()["well"].status == "unknown"
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert monitor.report()["well"].status == "ok"
    now = 60.0
    assert monitor.report()["well"].status == "unknown"
    assert monitor.report()["well"].age_seconds == 60


async def test_the_service_starts_and_stops_as_a_process(tmp_path: Path) -> None:
    """`python -m services.health` serves until SIGTERM and then exits with 0."""
    port = free_port()
    environ = {
        **os.environ,
        "HEALTH_PORT": str(port),
        "WEBHOOK_INTERNAL_URL": f"http://127.0.0.1:{free_port()}",
        "MESSAGING_GRPC_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.health", env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        if (await client.get("/api/health/liveness")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
            assert (await client.get("/api/health/readiness")).status_code == 503
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
