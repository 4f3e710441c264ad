"""The internal Prometheus port."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server


@contextlib.contextmanager
def serving_metrics(
    port: int | None, registry: CollectorRegistry, host: str = "127.0.0.1"
) -> Iterator[None]:
    """Serve `registry` on an internal port while the context is open; nothing when None."""
    if port is None:
        yield
        return
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
