"""What every API request passes before anything else: key, quota, size."""

import asyncio
import time
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.content_length import is_length_within
from services.common.refusals import FailureLimiter, LogLimiter, sender_of
from services.common.tracing import (
    TRACEPARENT,
    NoTracing,
    Tracing,
    request_id,
    sent_traceparent,
)
from services.webhook.api.keys import ApiKeys
from services.webhook.api.limits import RateLimiter
from services.webhook.api.problems import ProblemError, internal_problem
from services.webhook.api.repeats import refuse_repeated_keys, refuse_repeats

log = structlog.get_logger(__name__)

KEY_HEADER = b"x-api-key"
MAX_BODY_BYTES = 64 * 1024
REQUEST_ID_HEADER = "X-Request-Id"
OPENAPI_PATH = "/api/openapi.json"
"""The only address that needs no key."""

_TRACEPARENT = TRACEPARENT.encode()
_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_READ_SECONDS = 10.0
# The server takes an answer's last part and doesn't say when that is sent.
_LONG_BYTES = 64 * 1024
_NOBODY = "none"
# Messages are nobody else's business, so no cache may keep them.
_NO_STORE = (b"cache-control", b"no-store")


class _DisconnectedError(Exception):
    """The sender went away before the request was complete."""


class Door:
    """ASGI middleware that lets in requests with a key, within its quota, of bounded size.

    It puts the key's name into the scope's state, and the request's id into every answer. A
    request without a good key is refused before its body is read.

    Args:
        failures_per_minute: Requests without a good key that a sender may make in a minute before
            it gets 429. A good key always passes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        requests_per_minute: int,
        failures_per_minute: int,
        registry: CollectorRegistry,
        tracing: Tracing | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._tracing = tracing or NoTracing()
        self._keys = keys
        self._limiter = RateLimiter(requests_per_minute, monotonic)
        self._failures = FailureLimiter(failures_per_minute, monotonic)
        self._log_limiter = LogLimiter(10.0, monotonic)
        self._monotonic = monotonic
        self._requests = Counter(
            "switchboard_api_requests",
            "API requests by operation, name of the key, and status",
            ["operation", "key", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "switchboard_api_request_seconds",
            "Time until an API request's answer begins",
            ["operation"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = dict(scope["headers"]).get(_TRACEPARENT, b"").decode("latin-1")
        with self._tracing.span(
            "API request", kind="server", parent=sent_traceparent(parent)
        ) as traceparent:
            await self._answer(request_id(traceparent), scope, receive, send)

    async def _answer(self, own_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        # An application around this one has put its own there.
        scope.pop("route", None)
        began = self._monotonic()
        more_headers: tuple[tuple[bytes, bytes], ...] = ()
        started = finished = False
        name = _NOBODY

        async def answer(message: Message) -> None:
            nonlocal started, finished
            if message["type"] == "http.response.start":
                started = True
                headers = [*message["headers"], *more_headers, (_REQUEST_ID, own_id.encode())]
                if all(header != b"cache-control" for header, _ in headers):
                    headers.append(_NO_STORE)
                message = {**message, "headers": headers}
                self._count(scope, name, message["status"], self._monotonic() - began)
            elif len(message.get("body", b"")) > _LONG_BYTES and not message.get("more_body"):
                # What comes after it waits until it is sent: so it counts as held until then.
                await send({**message, "more_body": True})
                message = {**message, "body": b""}
            await send(message)
            finished = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            if scope["path"] != OPENAPI_PATH:
                name = state["key"] = self._authenticated(scope)
                quota = self._limiter.take(name)
                more_headers = quota.headers
                quota.check()
                refuse_repeats(scope)
                receive = await _with_whole_body(scope, receive)
            await self._app(scope, receive, answer)
        except ProblemError as problem:
            await problem.response()(scope, receive, answer)
        except _DisconnectedError:
            log.info("an API request broke off", key=name)
        except Exception:
            log.exception("an API request failed", key=name)
            if not started:
                await internal_problem().response()(scope, receive, answer)
            elif not finished:
                raise  # The server breaks the connection, so that nobody takes a part for all.

    def _authenticated(self, scope: Scope) -> str:
        """The name of the request's key."""
        if not self._keys:
            raise ProblemError(
                503, "API_DISABLED", "No API keys are configured here: set API_KEYS to use the API."
            )
        # White space around a value isn't of it (RFC 9110, 5.5); the parser leaves what follows.
        shown = [value.strip(b" \t") for name, value in scope["headers"] if name == KEY_HEADER]
        name = self._keys.name_of(shown[0]) if len(shown) == 1 else None
        if name is not None:
            return name
        sender = sender_of(scope)
        held_back = self._log_limiter.suppressed("unauthenticated")
        if held_back is not None:
            log.warning("API request without a good key", sender=sender, held_back=held_back)
        if seconds := self._failures.failed(sender):
            raise ProblemError(
                429,
                "RATE_LIMITED",
                "Too many requests without a good API key.",
                headers={"retry-after": str(int(seconds) + 1)},
            )
        raise ProblemError(
            401,
            "UNAUTHENTICATED",
            "The header X-API-Key has no valid key." if shown else "Send your key as X-API-Key.",
            headers={"www-authenticate": 'ApiKey realm="switchboard"'},
        )

    def _count(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        # The route's name is one of a fixed set; addresses hold phone numbers.
        operation = getattr(scope.get("route"), "name", "none")
        self._requests.labels(operation, name, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)
        # Who is refused at the door asks as often as they like, and has been told of there.
        refused = name == _NOBODY or status == 429
        if refused and self._log_limiter.suppressed("refused") is None:
            return
        failed = status >= 500
        write = log.warning if failed else log.info
        write(
            "API request failed" if failed else "API request",
            operation=operation,
            key=name,
            status=status,
        )


async def _with_whole_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body, and give it out again.

    Raises:
        ProblemError: It is too large, too slow, no JSON by its type, or compressed; or one of its
            keys is given twice.
        _DisconnectedError: Its sender went away before all of it was there.
    """
    headers = dict(scope["headers"])
    too_large = ProblemError(
        413,
        "TOO_LARGE",
        f"The body is larger than {MAX_BODY_BYTES} bytes.",
        headers={"connection": "close"},
    )
    length = headers.get(b"content-length", b"0")
    if not is_length_within(length, MAX_BODY_BYTES):
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(_READ_SECONDS):
            more = length != b"0" or b"transfer-encoding" in headers
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _DisconnectedError
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
                more = message.get("more_body", False)
    except TimeoutError:
        raise ProblemError(
            408,
            "TOO_SLOW",
            "The request took too long to arrive.",
            headers={"connection": "close"},
        ) from None
    if body and headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise ProblemError(
            415, "UNSUPPORTED_MEDIA_TYPE", "The body is compressed; send it uncompressed."
        )
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        raise ProblemError(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json.")
    if not body:
        return receive
    refuse_repeated_keys(body)
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
