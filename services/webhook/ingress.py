"""The door for providers: verify, journal, answer.

A plain ASGI application, because a framework's request and response cost more than all of this.
A 2xx means that the event is on disk: in the journal, or in the spill while the journal is away.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import Receive, Scope, Send

from services.common.errors import InvalidInputError
from services.common.http_server import behind_proxies
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher, JournalUnavailableError
from services.webhook.deadline import Deadline
from services.webhook.refusals import FailureLimiter, LogLimiter, sender_of
from services.webhook.routes import WebhookRoute, to_event
from services.webhook.signature import (
    SIGNATURE_HEADER,
    SignatureResult,
    SignatureVerifier,
    parse_form,
)
from services.webhook.spill import Spill, SpillUnavailableError

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_PARAMETERS = 1000
"""Far above any real webhook's, low enough that an unsigned request costs little."""

_EMPTY_TWIML = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_RETRY_SECONDS = b"5"


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: str
    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _RefusedError(Exception):
    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


class _DisconnectedError(Exception):
    """The sender went away before the request was complete."""


_METHOD = _Answer(
    "method_not_allowed",
    405,
    "Only POST is taken here: set the webhook's method to HTTP POST.",
    ((b"allow", b"POST"),),
)
_MISSING = _Answer("missing_signature", 400, "The X-Twilio-Signature header is missing.")
_INVALID = _Answer(
    "invalid_signature",
    403,
    "The signature doesn't match. PUBLIC_HOST and the address configured at Twilio must be the"
    " same, and TWILIO_AUTH_TOKEN the account's.",
)
_NO_KEY = _Answer("no_key", 500, "No key is configured, so nothing can be verified.")
_MEDIA_TYPE = _Answer(
    "unsupported_media_type", 415, "The body must be application/x-www-form-urlencoded."
)
_TOO_LARGE = _Answer(
    "too_large",
    413,
    f"The body is larger than {MAX_BODY_BYTES} bytes.",
    ((b"connection", b"close"),),
)
_TOO_SLOW = _Answer(
    "too_slow",
    408,
    "The request took too long to arrive.",
    ((b"connection", b"close"),),
)
_TOO_MANY = _Answer("malformed", 400, f"There are more than {MAX_PARAMETERS} parameters.")
_UNAVAILABLE = _Answer(
    "unavailable",
    503,
    "The event can't be stored now; send it again.",
    ((b"retry-after", _RETRY_SECONDS),),
)

_OUTCOMES = (
    "journaled",
    "spilled",
    "malformed",
    "rate_limited",
    "disconnected",
    "error",
    *(
        answer.outcome
        for answer in (
            _METHOD,
            _MISSING,
            _INVALID,
            _NO_KEY,
            _MEDIA_TYPE,
            _TOO_LARGE,
            _TOO_SLOW,
            _UNAVAILABLE,
        )
    ),
)

_OK_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/xml; charset=utf-8"),
        (b"content-length", str(len(_EMPTY_TWIML)).encode()),
    ],
}
_OK_BODY = {"type": "http.response.body", "body": _EMPTY_TWIML}


class WebhookIngress:
    """ASGI application for the providers' webhooks.

    Args:
        verifier: None accepts everything: development only.
        failures_per_minute: Refused signatures a minute after which a sender gets 429 for more.
            A valid signature always passes.
        trusted_proxies: Comma-separated addresses whose `X-Forwarded-For` names the sender.
        read_seconds: How long a request may take to arrive. Twilio gives up after 15 s in all.
        now: Clock for the time of receipt; aware, UTC.
    """

    def __init__(
        self,
        *,
        routes: Iterable[WebhookRoute],
        verifier: SignatureVerifier | None,
        journal: JournalPublisher,
        spill: Spill,
        registry: CollectorRegistry,
        failures_per_minute: int = 30,
        trusted_proxies: str = "127.0.0.1",
        read_seconds: float = 8.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = {route.path: route for route in routes}
        self._verifier = verifier
        self._journal = journal
        self._spill = spill
        self._deadline = Deadline(read_seconds)
        self._now = now
        self._failures = FailureLimiter(failures_per_minute, monotonic)
        # Puts the sender's address into the scope. Around all requests it took a twentieth of a
        # webhook's time, and only refusals ask who sent it.
        self._forwarded = behind_proxies(_nothing, trusted_proxies)
        self._log_limiter = LogLimiter(10.0, monotonic)
        counter = Counter(
            "switchboard_webhook_requests",
            "Webhook requests by what became of them",
            ["route", "outcome"],
            registry=registry,
        )
        self._counts = {
            (route.name, outcome): counter.labels(route.name, outcome)
            for route in self._routes.values()
            for outcome in _OUTCOMES
        }

    def serves(self, path: str) -> bool:
        """Whether `path` is one of the webhooks' addresses."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request to an address that `serves` accepts."""
        route = self._routes[scope["path"]]
        try:
            event = await self._accept(route, scope, receive)
            outcome = await self._store(event)
        except _RefusedError as refused:
            await self._forwarded(scope, receive, send)
            await self._refuse(route, scope, refused.answer, send)
        except _DisconnectedError:
            self._counts[route.name, "disconnected"].inc()
        except Exception:
            self._counts[route.name, "error"].inc()
            raise
        else:
            self._counts[route.name, outcome].inc()
            await send(_OK_START)
            await send(_OK_BODY)

    async def _accept(self, route: WebhookRoute, scope: Scope, receive: Receive) -> JournalEvent:
        """Read and verify one request, in the order of what each check costs."""
        if scope["method"] != "POST":
            raise _RefusedError(_METHOD)
        headers = dict(scope["headers"])
        if self._verifier is not None and SIGNATURE_HEADER not in headers:
            raise _RefusedError(_MISSING)
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type not in (b"application/x-www-form-urlencoded", b""):
            raise _RefusedError(_MEDIA_TYPE)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise _RefusedError(_TOO_LARGE)
        try:
            with self._deadline:
                body = await _read(receive)
        except TimeoutError:
            raise _RefusedError(_TOO_SLOW) from None
        if body and not media_type:
            raise _RefusedError(_MEDIA_TYPE)
        raw_query: bytes = scope["query_string"]
        try:
            form = parse_form(body, max_parameters=MAX_PARAMETERS)
            query = parse_form(raw_query, max_parameters=MAX_PARAMETERS) if raw_query else []
        except ValueError:
            raise _RefusedError(_TOO_MANY) from None
        if self._verifier is not None:
            result = self._verifier.verify(
                raw_path=scope["raw_path"],
                raw_query=raw_query,
                headers=scope["headers"],
                form=form,
                body=body,
            )
            if result is not SignatureResult.VALID:
                raise _RefusedError(_NO_KEY if result is SignatureResult.NO_KEY else _INVALID)
        try:
            return to_event(
                route,
                form,
                query,
                received_at=self._now(),
                traceparent=headers.get(b"traceparent", b""),
                idempotency_token=headers.get(b"i-twilio-idempotency-token", b""),
            )
        except InvalidInputError as error:
            raise _RefusedError(_Answer("malformed", 400, f"{error}.")) from error

    async def _store(self, event: JournalEvent) -> str:
        """Put the event on a disk, and say on which."""
        try:
            await self._journal.publish(event)
        except JournalUnavailableError as unavailable:
            try:
                await self._spill.put(event)
            except SpillUnavailableError as error:
                raise _RefusedError(_UNAVAILABLE) from error
            self._log("spilled", reason=str(unavailable))
            return "spilled"
        return "journaled"

    async def _refuse(self, route: WebhookRoute, scope: Scope, answer: _Answer, send: Send) -> None:
        sender = sender_of(scope)
        if answer in (_MISSING, _INVALID) and (seconds := self._failures.failed(sender)):
            answer = _Answer(
                "rate_limited",
                429,
                "Too many requests without a valid signature.",
                ((b"retry-after", str(int(seconds) + 1).encode()),),
            )
        self._counts[route.name, answer.outcome].inc()
        self._log(answer.outcome, route=route.name, sender=sender, status=answer.status)
        body = answer.text.encode()
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", b"text/plain; charset=utf-8"),
                    (b"content-length", str(len(body)).encode()),
                    *answer.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def _log(self, outcome: str, **fields: object) -> None:
        held_back = self._log_limiter.suppressed(outcome)
        if held_back is None:
            return
        write = log.error if outcome in ("no_key", "unavailable") else log.warning
        write("webhook " + outcome.replace("_", " "), held_back=held_back, **fields)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands where an application is wanted."""


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _RefusedError(_TOO_LARGE)
        if not message.get("more_body", False):
            return body
