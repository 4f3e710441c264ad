"""What every process measures of itself, and the internal port that Prometheus reads it from."""

import asyncio
import contextlib
import importlib.metadata
from collections.abc import Iterator
from typing import Final, cast

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    Info,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LAG_PAUSE_SECONDS: Final = 0.25
_SILENT_SECONDS = 10.0


def version() -> str:
    """Switchboard's version."""
    return importlib.metadata.version("switchboard-server")


def process_registry(service: str) -> CollectorRegistry:
    """A registry with the process's own metrics; one a process."""
    # A series more for each counter and histogram, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # It has no types.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("switchboard_build", "Which service this is, and its version.", registry=registry).info(
        {"service": service, "version": version()}
    )
    return registry


async def watch_event_loop(registry: CollectorRegistry) -> None:
    """Measure until cancelled how late the event loop is."""
    lag = Histogram(
        "switchboard_event_loop_lag_seconds",
        "How much later than asked for the event loop came back to a sleeper.",
        buckets=_LAG_BUCKETS,
        registry=registry,
    )
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PAUSE_SECONDS
        await asyncio.sleep(_LAG_PAUSE_SECONDS)
        lag.observe(max(loop.time() - due, 0.0))


@contextlib.contextmanager
def serving_metrics(port: int | None, registry: CollectorRegistry, *, host: str) -> Iterator[None]:
    """Serve `registry` on an internal port while the context is open; nothing when None."""
    if port is None:
        yield
        return
    server, thread = start_http_server(port, addr=host, registry=registry)
    # Each connection has a thread, and who asks nothing would keep it.
    handler = cast(type, server.RequestHandlerClass)
    server.RequestHandlerClass = type("Handler", (handler,), {"timeout": _SILENT_SECONDS})
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
