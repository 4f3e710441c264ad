"""The door for providers: verify, journal, answer.

A plain ASGI application, because a framework's request and response cost more than all of this.
A 2xx means that the event is on disk: in the journal, or in the spill while the journal is away.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import Receive, Scope, Send

from services.common.errors import InvalidInputError
from services.common.http_server import behind_proxies, is_length_within
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError
from services.common.refusals import FailureLimiter, LogLimiter, sender_of
from services.common.tracing import TRACEPARENT, NoTracing, Tracing, sent_traceparent
from services.webhook import answers
from services.webhook.answers import MAX_BODY_BYTES, MAX_PARAMETERS, Answer, RefusedError
from services.webhook.deadline import Deadline
from services.webhook.pace import Pace
from services.webhook.routes import WebhookRoute, to_event
from services.webhook.signature import (
    SIGNATURE_HEADER,
    SignatureResult,
    SignatureVerifier,
    parse_form,
)
from services.webhook.spill import Spill, SpillUnavailableError

log = structlog.get_logger(__name__)

_TRACEPARENT = TRACEPARENT.encode()
# As many as make a bundle.
_AT_ONCE = 32
_Headers = Mapping[bytes, bytes]


class _DisconnectedError(Exception):
    """The sender went away before the request was complete."""


class WebhookIngress:
    """ASGI application for the providers' webhooks.

    Args:
        verifier: None accepts everything: development only.
        failures_per_minute: Refused signatures a minute after which a sender gets 429 for more.
            A valid signature always passes.
        trusted_proxies: Comma-separated addresses whose `X-Forwarded-For` names the sender.
        read_seconds: How long a request may take to arrive. Twilio gives up after 15 s in all.
        now: Clock for the time of receipt; aware, UTC.
        monotonic: Clock in seconds, for limits and for how long a request has taken.
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
        tracing: Tracing | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = {route.path: route for route in routes}
        self._verifier = verifier
        self._journal = journal
        self._spill = spill
        self._deadline = Deadline(read_seconds)
        self._pace = Pace(_AT_ONCE)
        self._now = now
        self._monotonic = monotonic
        self._tracing = tracing or NoTracing()
        self._failures = FailureLimiter(failures_per_minute, monotonic)
        # Puts the sender's address into the scope. Around all requests it took a twentieth of a
        # webhook's time, and only refusals ask who sent it.
        self._forwarded = behind_proxies(_nothing, trusted_proxies)
        self._log_limiter = LogLimiter(10.0, monotonic)
        # Looked up for each webhook it takes five times as long as writing nothing.
        self._debug = log.bind().debug
        counter = Counter(
            "switchboard_webhook_requests",
            "Webhook requests by what became of them",
            ["route", "outcome"],
            registry=registry,
        )
        self._counts = {
            (route.name, outcome): counter.labels(route.name, outcome)
            for route in self._routes.values()
            for outcome in answers.OUTCOMES
        }

        seconds = Histogram(
            "switchboard_webhook_request_seconds",
            "Time until a webhook whose event was stored is answered, by route.",
            ["route"],
            # Twilio gives up after 15 s; a message is to be answered within 50 ms, and a caller
            # is kept waiting for up to 4 s.
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 8.0, 15.0),
            registry=registry,
        )
        self._seconds = {name: seconds.labels(name) for name, _ in self._counts}
        self._spans = {name: f"webhook {name}" for name in self._seconds}

    def serves(self, path: str) -> bool:
        """Whether `path` is one of the webhooks' addresses."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request to an address that `serves` accepts."""
        route = self._routes[scope["path"]]
        headers = dict(scope["headers"])
        parent = sent_traceparent(headers.get(_TRACEPARENT, b"").decode("latin-1"))
        with self._tracing.span(self._spans[route.name], kind="server", parent=parent) as own:
            await self._answer(route, headers, own, scope, receive, send)

    async def _answer(
        self,
        route: WebhookRoute,
        headers: _Headers,
        traceparent: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        began = self._monotonic()
        try:
            event = await self._accept(route, headers, traceparent, scope, receive)
            outcome = await self._store(route, event)
        except RefusedError as refused:
            await self._forwarded(scope, receive, send)
            await self._refuse(route, scope, refused.answer, send)
        except _DisconnectedError:
            self._counts[route.name, "disconnected"].inc()
        except Exception:
            # Logged here, where it is known which request it was.
            log.exception("a webhook failed", route=route.name)
            self._counts[route.name, "error"].inc()
            await answers.send_answer(send, answers.FAILED)
        else:
            self._counts[route.name, outcome].inc()
            self._debug("webhook stored", route=route.name, outcome=outcome)
            if route.responder is None:
                await answers.send_nothing_to_do(send)
            else:
                await answers.send_twiml(send, await route.responder.respond(event, began))
            self._seconds[route.name].observe(self._monotonic() - began)

    async def _accept(
        self,
        route: WebhookRoute,
        headers: _Headers,
        traceparent: str,
        scope: Scope,
        receive: Receive,
    ) -> JournalEvent:
        """Read and verify one request, in the order of what each check costs."""
        if scope["method"] != "POST":
            raise RefusedError(answers.METHOD)
        if self._verifier is not None and SIGNATURE_HEADER not in headers:
            raise RefusedError(answers.MISSING)
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type not in (b"application/x-www-form-urlencoded", b""):
            raise RefusedError(answers.MEDIA_TYPE)
        if not is_length_within(headers.get(b"content-length", b"0"), MAX_BODY_BYTES):
            raise RefusedError(answers.TOO_LARGE)
        try:
            with self._deadline:
                body = await _read(receive)
        except TimeoutError:
            raise RefusedError(answers.TOO_SLOW) from None
        if body and not media_type:
            raise RefusedError(answers.MEDIA_TYPE)
        await self._pace.turn()
        raw_query: bytes = scope["query_string"]
        try:
            form = parse_form(body, max_parameters=MAX_PARAMETERS)
            query = parse_form(raw_query, max_parameters=MAX_PARAMETERS) if raw_query else []
        except ValueError:
            raise RefusedError(answers.TOO_MANY) from None
        if self._verifier is not None:
            result = self._verifier.verify(
                raw_path=scope["raw_path"],
                raw_query=raw_query,
                headers=scope["headers"],
                form=form,
                body=body,
            )
            if result is not SignatureResult.VALID:
                raise RefusedError(
                    answers.NO_KEY if result is SignatureResult.NO_KEY else answers.INVALID
                )
        try:
            return to_event(
                route,
                form,
                query,
                received_at=self._now(),
                traceparent=traceparent,
                idempotency_token=headers.get(b"i-twilio-idempotency-token", b""),
            )
        except InvalidInputError as error:
            raise RefusedError(answers.malformed(str(error))) from error

    async def _store(self, route: WebhookRoute, event: JournalEvent) -> str:
        """Put the event on a disk, and say on which."""
        try:
            await self._journal.publish(event)
        except JournalUnavailableError as unavailable:
            try:
                await self._spill.put(event)
            except SpillUnavailableError as error:
                if route.responder is None:
                    raise RefusedError(answers.UNAVAILABLE) from error
                address = route.responder.without_event(event)
                raise RefusedError(answers.elsewhere(address)) from error
            self._log("spilled", reason=str(unavailable))
            return "spilled"
        return "journaled"

    async def _refuse(self, route: WebhookRoute, scope: Scope, answer: Answer, send: Send) -> None:
        sender = sender_of(scope)
        if answer in (answers.MISSING, answers.INVALID) and (
            seconds := self._failures.failed(sender)
        ):
            answer = answers.rate_limited(seconds)
        self._counts[route.name, answer.outcome].inc()
        self._log(answer.outcome, route=route.name, sender=sender, status=answer.status)
        await answers.send_answer(send, answer)

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
            raise RefusedError(answers.TOO_LARGE)
        if not message.get("more_body", False):
            return body
