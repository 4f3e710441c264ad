"""A collector of OpenTelemetry traces that keeps what it gets."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span(NamedTuple):
    """What matters of a span."""

    service: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes


class Collector:
    """What has come in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.raw = b""

    def take(self, body: bytes) -> None:
        """Keep what an exporter sent."""
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.spans += [
                Span(named["service.name"], span.name, span.trace_id, span.span_id,
                     span.parent_span_id)
                for scope in resource.scope_spans
                for span in scope.spans
            ]  # fmt: skip

    def trace_with(self, *names: str, seconds: float = 30) -> list[Span]:
        """All spans of the first trace in which all these occur.

        Raises:
            AssertionError: There is none in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            traces: dict[bytes, list[Span]] = {}
            for span in list(self.spans):
                traces.setdefault(span.trace, []).append(span)
            for spans in traces.values():
                if set(names) <= {span.name for span in spans}:
                    return spans
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.1)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
