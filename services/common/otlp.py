"""Tracing by OpenTelemetry, sent to a collector by OTLP over HTTP."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.metrics import version
from services.common.tracing import TRACEPARENT, SpanKind, Within, current

_KINDS: Final = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
    "internal": trace.SpanKind.INTERNAL,
}


class OpenTelemetryTracing:
    """`Tracing` for one process.

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

    @contextlib.contextmanager
    def span(self, name: str, *, kind: SpanKind = "internal", parent: str = "") -> Iterator[str]:
        """A span while the context is open."""
        carrier = {TRACEPARENT: parent or current()}
        context = self._propagator.extract(carrier, Context())
        span = self._tracer.start_span(name, context, kind=_KINDS[kind])
        with Within(_traceparent(span.get_span_context())) as own:
            try:
                yield own
            except BaseException:
                # Without its text, which may quote what a contact wrote.
                span.set_status(trace.StatusCode.ERROR)
                raise
            finally:
                span.end()

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)


def _traceparent(context: trace.SpanContext) -> str:
    trace_id = trace.format_trace_id(context.trace_id)
    return f"00-{trace_id}-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"
