"""`python -m services.health`."""

import asyncio
import contextlib

import httpx
import structlog
from nats.aio.client import Client

from services.common.configuration import configuration_finding
from services.common.http_server import serving_http
from services.common.journal.client import NatsClient, cancellable
from services.common.journal.streams import connect
from services.common.lifecycle import run_service, run_until_stopped
from services.common.metrics import process_registry, serving_metrics, watch_event_loop
from services.common.monitor import Monitor, Probe
from services.health.access import Access
from services.health.app import build_app
from services.health.edge import webhook_probe
from services.health.heard import CLOCKS, Heard
from services.health.jetstream import nats_probe
from services.health.messaging import messaging_probe
from services.health.metrics import ProbeMetrics
from services.health.probes import MESSAGING, NATS, WEBHOOK
from services.health.report import Report
from services.health.settings import HealthSettings

log = structlog.get_logger(__name__)


async def serve(settings: HealthSettings, stop: asyncio.Event) -> None:
    """Probe and serve until `stop` is set."""
    registry = process_registry("health")
    metrics = ProbeMetrics(registry)
    client = NatsClient()
    interval, timeout = (
        settings.health_probe_interval_seconds,
        settings.health_probe_timeout_seconds,
    )
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(client.close)
        http = await closing.enter_async_context(
            httpx.AsyncClient(trust_env=False, timeout=timeout)
        )
        heard = Heard()
        monitor = Monitor(
            [
                Probe(
                    WEBHOOK,
                    webhook_probe(http, settings.webhook_internal_url, heard),
                    interval,
                    timeout,
                ),
                Probe(
                    MESSAGING,
                    messaging_probe(
                        settings.messaging_grpc_address, settings.messaging_token(), timeout, heard
                    ),
                    interval,
                    timeout,
                ),
                Probe(
                    NATS,
                    nats_probe(client, heard, storage_max_bytes=settings.nats_storage_max_bytes),
                    interval,
                    timeout,
                ),
                Probe(CLOCKS, heard.clocks, interval, timeout),
            ],
            on_probe=metrics.probed,
        )
        report = Report(monitor, configuration_finding(settings))
        closing.enter_context(
            serving_metrics(settings.metrics_port, registry, host=settings.metrics_host)
        )
        app = build_app(
            report,
            access=Access(settings.open_networks(), settings.keys()),
            registry=registry,
            to_pair=lambda: heard.to_pair,
            trusted_proxies=settings.trusted_proxies,
        )
        async with serving_http(app, host=settings.health_host, port=settings.health_port) as port:
            log.info("health is ready", port=port)
            await run_until_stopped(
                stop,
                cancellable(_stay_connected(client, settings.nats_url.get_secret_value())),
                monitor.run(),
                metrics.show(report),
                watch_event_loop(registry),
            )


async def _stay_connected(client: Client, url: str) -> None:
    """Connect, however long NATS stays away.

    Raises:
        ConnectionError: The client has given up for good.
    """
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    await connect(url, name="switchboard-health", on_closed=on_closed, client=client)
    await closed.wait()
    raise ConnectionError("the NATS client has given up")


if __name__ == "__main__":
    run_service("health", HealthSettings, serve)
