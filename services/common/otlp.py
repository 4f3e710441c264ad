"""Tracing by OpenTelemetry, sent to a collector by OTLP over HTTP."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.metrics import version
from services.common.tracing import TRACEPARENT, SpanKind

_KINDS: Final = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
    "internal": trace.SpanKind.INTERNAL,
}
_REMEMBERED: Final = 10_000


class OpenTelemetryTracing:
    """`Tracing` for one process.

    What this process doesn't finish itself, because another replica does or it restarts, goes on
    as a trace of its own.

    Args:
        endpoint: Base address of the collector; its own OTEL_EXPORTER_OTLP_HEADERS are sent too.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        resource = Resource.create(
            {"service.name": f"switchboard-{service}", "service.version": version()}
        )
        # The process's own, not the library's global one: tests have several.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("switchboard", version())
        self._propagator = TraceContextTextMapPropagator()
        self._remembered: OrderedDict[str, str] = OrderedDict()

    @contextlib.contextmanager
    def span(self, name: str, *, kind: SpanKind = "internal", parent: str = "") -> Iterator[str]:
        """A span while the context is open."""
        context: Context | None = None
        if parent:
            context = self._propagator.extract({TRACEPARENT: parent}, Context())
        span = self._tracer.start_span(name, context, kind=_KINDS[kind])
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        with (
            # An exception's text may quote what a contact wrote, so it is left out.
            trace.use_span(span, record_exception=False, set_status_on_exception=False),
            # So that the logs of all services can be searched for it.
            structlog.contextvars.bound_contextvars(trace_id=trace_id),
        ):
            try:
                yield self.current()
            except BaseException:
                span.set_status(trace.StatusCode.ERROR)
                raise
            finally:
                span.end()

    def current(self) -> str:
        """The traceparent of the span around this place."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(TRACEPARENT, "")

    def remember(self, key: str, traceparent: str) -> None:
        """Keep a context."""
        self._remembered[key] = traceparent
        self._remembered.move_to_end(key)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def recall(self, key: str) -> str:
        """The context kept for `key`."""
        return self._remembered.get(key, "")

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)
