"""Following one event through all services. Off unless a collector is configured.

Contexts travel as W3C `traceparent` texts: in NATS' headers, in gRPC's metadata, and within a
process by a key. https://www.w3.org/TR/trace-context/
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Literal, Protocol

from services.common.settings import CommonSettings

SpanKind = Literal["server", "client", "producer", "consumer", "internal"]

TRACEPARENT = "traceparent"


class Tracing(Protocol):
    """What services do about traces. Names of spans are fixed words, and hold nothing personal."""

    def span(
        self, name: str, *, kind: SpanKind = "internal", parent: str = ""
    ) -> contextlib.AbstractContextManager[str]:
        """A span while the context is open, failed when it raises; yields its traceparent.

        Args:
            parent: A traceparent; "" for the span around this one, if any.
        """
        ...

    def current(self) -> str:
        """The traceparent of the span around this place; "" when there is none."""
        ...

    def remember(self, key: str, traceparent: str) -> None:
        """Keep a context for whoever goes on with `key` in this process, for a while."""
        ...

    def recall(self, key: str) -> str:
        """The context kept for `key`; "" when there is none."""
        ...


class NoTracing:
    """`Tracing` that does nothing."""

    @contextlib.contextmanager
    def span(self, name: str, *, kind: SpanKind = "internal", parent: str = "") -> Iterator[str]:
        """Nothing."""
        yield parent

    def current(self) -> str:
        """No context."""
        return ""

    def remember(self, key: str, traceparent: str) -> None:
        """Nothing is kept."""

    def recall(self, key: str) -> str:
        """Nothing was kept."""
        return ""


@contextlib.asynccontextmanager
async def tracing(settings: CommonSettings, service: str) -> AsyncIterator[Tracing]:
    """Tracing as it is configured; what is still to be sent is sent on leaving.

    Raises:
        RuntimeError: A collector is configured, and the packages for it are missing.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        yield NoTracing()
        return
    try:
        # Only who wants traces needs its packages.
        from services.common.otlp import OpenTelemetryTracing
    except ImportError as error:
        raise RuntimeError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry isn't installed: "
            "install Switchboard with its extra `tracing`"
        ) from error
    found = OpenTelemetryTracing(settings.otel_exporter_otlp_endpoint, service)
    try:
        yield found
    finally:
        await found.close()
