"""What every call passes on its way in and out: token, limits, errors, metrics and trace."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, Counter, Histogram
from switchboard.health.v1 import health_service_pb2

from services.common.errors import (
    OverloadedError,
    SwitchboardError,
    UnauthenticatedError,
    UnavailableError,
)
from services.common.grpc_errors import abort, code_of, fail, refuse
from services.common.tracing import TRACEPARENT, Tracing, enter, sent_traceparent

# Nobody has to show a token for these.
_MAX_HEALTH_WATCHERS = 50

_REFUSAL = "the metadata 'authorization' has no valid token"
_HEALTH_PREFIX = f"/{health.SERVICE_NAME}/"
# Answered from memory, and most wanted when there is much else to do.
_UNLIMITED_PREFIX = f"/{health_service_pb2.DESCRIPTOR.services_by_name['HealthService'].full_name}/"
_OK = "OK"
_TARGETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

StreamHandler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncGenerator[Any, None]]
Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Coroutine[Any, Any, Any]]


class _Calls:
    """Counts and measures calls, by method and code."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._total = Counter(
            "switchboard_grpc_requests_total",
            "Calls of gRPC methods that have ended, streams included, by method and code.",
            ["method", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "switchboard_grpc_request_seconds",
            "Time that calls of gRPC methods took; without streams, which may last.",
            ["method"],
            buckets=_TARGETS,
            registry=registry,
        )

    def ended(self, method: str, code: str, seconds: float | None) -> None:
        """Take note of a call; no time for a stream."""
        # Only methods that exist come here, so the label is bounded.
        name = method.rpartition("/")[2]
        self._total.labels(name, code).inc()
        if seconds is not None:
            self._seconds.labels(name).observe(seconds)


class Guard(grpc.aio.ServerInterceptor):
    """Checks the token, bounds concurrency and time, and turns every exception into a status.

    grpc's own `maximum_concurrent_rpcs` can be bypassed, and an unhandled exception would
    reach the client with its text.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        max_concurrent: int,
        max_seconds: float,
        registry: CollectorRegistry | None,
        tracing: Tracing,
        open_before: Collection[str] | None,
    ) -> None:
        self._open_before = {reflection.SERVICE_NAME, *(open_before or ())}
        self.is_open = open_before is None
        self._calls = _Calls(registry)
        self._tracing = tracing
        self._expected = [f"Bearer {token}".encode() for token in tokens]
        self._max_concurrent = max_concurrent
        self._open_calls = 0
        self._running: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._health_watchers = 0
        self._max_seconds = max_seconds

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None:
            return handler
        # Probes carry no secrets and learn none.
        if method.startswith(_HEALTH_PREFIX):
            return self._watched(handler) if handler.unary_stream else handler
        if not self.is_open and method.split("/")[1] not in self._open_before:
            return refuse(handler, UnavailableError("not ready for this yet, try again shortly"))
        shown = dict(handler_call_details.invocation_metadata).get("authorization", "")
        allowed = self._is_known(shown if isinstance(shown, bytes) else str(shown).encode())
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._guarded(method, allowed, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._guarded_stream(method, allowed, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler if allowed else refuse(handler, UnauthenticatedError(_REFUSAL))

    def _watched(self, handler: Any) -> Any:
        """Watching health, by no more than a few: strangers may, and each takes memory."""

        async def watch(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            if self._health_watchers >= _MAX_HEALTH_WATCHERS:
                await abort(context, OverloadedError("too many watch health, ask by Check"))
            self._health_watchers += 1
            try:
                await handler.unary_stream(request, context)
            finally:
                self._health_watchers -= 1

        return grpc.unary_stream_rpc_method_handler(
            watch,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _is_known(self, shown: bytes) -> bool:
        matches = [hmac.compare_digest(shown, expected) for expected in self._expected]
        return any(matches)

    def _guarded(self, method: str, allowed: bool, call: Handler) -> Handler:
        span = method.rpartition("/")[2]

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began, code = time.perf_counter(), _OK
            with self._tracing.span(span, kind="server", parent=_traceparent(context)):
                try:
                    return await self._answer(method, allowed, call(request, context), context)
                except asyncio.CancelledError:
                    code = grpc.StatusCode.CANCELLED.name
                    raise
                except TimeoutError:
                    code = grpc.StatusCode.DEADLINE_EXCEEDED.name
                    await context.abort(
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        f"not done within {self._max_seconds:g} s",
                    )
                except Exception as error:  # noqa: BLE001 - It is turned into a status, and logged.
                    code = code_of(error)
                    await fail(context, error, method)
                finally:
                    self._calls.ended(method, code, time.perf_counter() - began)

        return guarded

    def _guarded_stream(self, method: str, allowed: bool, call: StreamHandler) -> StreamHandler:
        """As for other calls, but a stream may last: how long is the caller's matter."""

        async def guarded(
            request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncGenerator[Any, None]:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - A coroutine runs in a task.
            code = _OK
            # No span, which would last as long.
            enter(_traceparent(context))
            try:
                self._admit(allowed, len(self._streams))
                self._streams.add(task)
                async with contextlib.aclosing(call(request, context)) as responses:
                    async for response in responses:
                        yield response
            except (asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED.name
                raise
            except Exception as error:  # noqa: BLE001 - It is turned into a status, and logged.
                code = code_of(error)
                await fail(context, error, method)
            finally:
                self._streams.discard(task)
                self._calls.ended(method, code, None)

        return guarded

    async def _answer(
        self,
        method: str,
        allowed: bool,
        answer: Coroutine[Any, Any, Any],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        """The answer, in time. A caller who leaves doesn't break off what was begun.

        A transaction broken off in the middle would cost a connection, on SQLite even more.
        """
        try:
            limited = not method.startswith(_UNLIMITED_PREFIX)
            self._admit(allowed, self._open_calls if limited else None)
        except SwitchboardError:
            answer.close()
            raise
        task = asyncio.create_task(answer)
        self._running.add(task)
        task.add_done_callback(self._ended)
        if limited:
            self._count(task, context)
        async with asyncio.timeout(self._max_seconds):
            return await asyncio.shield(task)

    def _count(self, task: asyncio.Task[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Count a call until it has ended and its answer was taken, or its caller has left.

        Until then the answer is in memory.
        """
        left: set[object] = {task, context}

        def ended(one: object) -> None:
            left.discard(one)
            if not left:
                self._open_calls -= 1

        self._open_calls += 1
        task.add_done_callback(ended)
        context.add_done_callback(ended)  # type: ignore[arg-type]  # grpc-stubs has a type of its own

    async def drained(self, seconds: float) -> None:
        """Wait until what calls have begun has ended, also where the caller has left."""
        if tasks := self._running | self._streams:
            await asyncio.wait(tasks, timeout=seconds)

    def _admit(self, allowed: bool, running: int | None) -> None:
        if not allowed:
            raise UnauthenticatedError(_REFUSAL)
        if running is not None and running >= self._max_concurrent:
            raise OverloadedError("too many calls at once, try again shortly")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        # Nobody may be waiting for its error any more.
        if not task.cancelled():
            task.exception()


def _traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    found = dict(context.invocation_metadata() or ()).get(TRACEPARENT, "")
    return sent_traceparent(found if isinstance(found, str) else "")
