"""Following one request through all services: in logs always, as spans with a collector.

What leads from one place to the next is a W3C `traceparent`: within a task it is a variable,
between processes it stands in NATS' headers and gRPC's metadata, and whoever goes on later finds
it in a column of the row that says what is to be done. Its trace id is the logs' `request_id`.
https://www.w3.org/TR/trace-context/
"""

import contextlib
import contextvars
import random
import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Literal, Protocol

from services.common.settings import CommonSettings

SpanKind = Literal["server", "client", "producer", "consumer", "internal"]

TRACEPARENT: Final = "traceparent"

# https://www.w3.org/TR/trace-context/#traceparent-header; all-zero ids are invalid.
_TRACEPARENT: Final = re.compile(
    r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)
_current: contextvars.ContextVar[str] = contextvars.ContextVar(TRACEPARENT, default="")


def new_traceparent() -> str:
    """A context of its own, for what nobody asked for, or somebody without one."""
    # 16 bytes of a trace, 8 of a span.
    ids = random.randbytes(24).hex()  # noqa: S311 - unique, not secret
    # Marked as sampled: else a service that has a collector would leave out all that follows.
    return f"00-{ids[:32]}-{ids[32:]}-01"


def sent_traceparent(header: str) -> str:
    """The context that somebody sent along; a new one where that is none."""
    return header if header and _TRACEPARENT.fullmatch(header) else new_traceparent()


def current() -> str:
    """The traceparent that this place belongs to; "" when it belongs to none."""
    return _current.get()


def request_id(traceparent: str = "") -> str:
    """What the logs call the request that a context, or else this place, belongs to; or ""."""
    return (traceparent or _current.get())[3:35]


def enter(traceparent: str) -> None:
    """Let the rest of this task belong to a context."""
    _current.set(traceparent)


def detached() -> contextvars.Context:
    """The context for a task that serves several requests, and so belongs to none."""
    context = contextvars.copy_context()
    context.run(_current.set, "")
    return context


class Within(contextlib.AbstractContextManager[str]):
    """Lets what happens inside belong to a context.

    A class, because a generator would take three times as long, and every webhook passes here.
    """

    __slots__ = ("_token", "_traceparent")

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    def __enter__(self) -> str:
        self._token = _current.set(self._traceparent)
        return self._traceparent

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.reset(self._token)


class Tracing(Protocol):
    """What services do about traces. Names of spans are fixed words, and hold nothing personal."""

    def span(
        self, name: str, *, kind: SpanKind = "internal", parent: str = ""
    ) -> contextlib.AbstractContextManager[str]:
        """A span while the context is open, failed when it raises; yields its traceparent.

        Args:
            parent: A traceparent; "" for what this place belongs to, and if that is nothing, the
                span begins a trace.
        """
        ...


class NoTracing:
    """`Tracing` without spans: what happens belongs to its request all the same."""

    def span(self, name: str, *, kind: SpanKind = "internal", parent: str = "") -> Within:
        """No span."""
        return Within(parent or _current.get() or new_traceparent())


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
