"""`python -m services.health`."""

import asyncio

import grpc.aio
import httpx
import structlog

from services.common.http_server import serving_http
from services.common.lifecycle import run_service, run_until_stopped
from services.health.app import build_app
from services.health.checks import Monitor, grpc_probe, webhook_probe
from services.health.settings import HealthSettings

log = structlog.get_logger(__name__)


async def serve(settings: HealthSettings, stop: asyncio.Event) -> None:
    """Probe and serve until `stop` is set."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None) as client,  # noqa: S113 - the monitor limits
        grpc.aio.insecure_channel(
            settings.messaging_grpc_address,
            options=[
                # Not the default of up to two minutes between attempts to connect.
                ("grpc.max_reconnect_backoff_ms", 2000),
                # Components are asked directly, whatever proxy leads outside.
                ("grpc.enable_http_proxy", 0),
            ],
        ) as channel,
    ):
        monitor = Monitor(
            {
                "webhook": webhook_probe(client, settings.webhook_internal_url),
                "messaging": grpc_probe(channel),
            },
            interval_seconds=settings.health_probe_interval_seconds,
            timeout_seconds=settings.health_probe_timeout_seconds,
        )
        async with serving_http(
            build_app(monitor), host=settings.health_host, port=settings.health_port
        ) as port:
            log.info("health is ready", port=port)
            await run_until_stopped(stop, monitor.run())


if __name__ == "__main__":
    run_service("health", HealthSettings, serve)
