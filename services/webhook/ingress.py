"""The door for providers: verify, journal, answer.

A plain ASGI application, because a framework's request and response cost more than all of this.
A 2xx means that the event is on disk: in the journal, or in the spill while the journal is away.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import Receive, Scope, Send

from services.common.http_direct import WholeRequest
from services.common.http_server import behind_proxies
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError
from services.common.refusals import FailureLimiter, LogLimiter, sender_of
from services.common.tracing import TRACEPARENT, NoTracing, Tracing, request_id, sent_traceparent
from services.webhook import answers
from services.webhook.answers import EMPTY_TWIML, MAX_BODY_BYTES, Answer, RefusedError
from services.webhook.deadline import Deadline
from services.webhook.pace import Pace
from services.webhook.routes import WebhookRoute
from services.webhook.signature import SignatureVerifier
from services.webhook.spill import Spill, SpillUnavailableError
from services.webhook.verification import Headers, Verification

log = structlog.get_logger(__name__)

_TRACEPARENT = TRACEPARENT.encode()
# As many as make a bundle.
_AT_ONCE = 32


_Work = Callable[[str], Awaitable[tuple[JournalEvent, str]]]
"""Of the request's traceparent: makes an event of it, and stores it; also says where."""


class _DisconnectedError(Exception):
    """The sender went away before the request was complete."""


class WebhookIngress:
    """ASGI application for the providers' webhooks; also takes them directly (`http_direct`).

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
        self._verification = Verification(verifier, now)
        self._journal = journal
        self._spill = spill
        self._deadline = Deadline(read_seconds)
        self._pace = Pace(self._take, _AT_ONCE)
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

        async def work(own: str) -> tuple[JournalEvent, str]:
            event = await self._accept(route, headers, own, scope, receive)
            return event, await self._store(route, event)

        await self._answer(route, parent, self._monotonic(), work, scope, receive, send)

    def takes(self, scope: Scope) -> bool:
        """Whether a request needs no task: nobody waits for more than a thank-you."""
        route = self._routes.get(scope["path"])
        return route is not None and route.responder is None

    def take(self, request: WholeRequest) -> None:
        """Answer one HTTP request that `takes` accepts."""
        # Waiting for its turn is a part of its time.
        self._pace.put((request, self._monotonic()))

    def _take(self, whole: tuple[WholeRequest, float]) -> None:
        request, began = whole
        scope = request.scope
        route = self._routes[scope["path"]]
        headers = dict(scope["headers"])
        traceparent = sent_traceparent(headers.get(_TRACEPARENT, b"").decode("latin-1"))
        try:
            self._verification.check_head(scope, headers)
            event = self._verification.event(route, scope, headers, request.body, traceparent)
            stored = partial(self._stored, request, route, event, began)
            try:
                self._journal.publish_soon(event, stored)
            except JournalUnavailableError as error:
                stored(error)
        except Exception as error:  # noqa: BLE001 - `_answer` tells them apart, and logs
            request.hand_on(partial(self._answer, route, traceparent, began, _failing(error)))

    def _stored(
        self,
        request: WholeRequest,
        route: WebhookRoute,
        event: JournalEvent,
        began: float,
        error: JournalUnavailableError | None,
    ) -> None:
        if error is None:
            self._count(route, "journaled", event.traceparent)
            answers.answer_nothing_to_do(request)
            self._seconds[route.name].observe(self._monotonic() - began)
            return

        async def work(own: str) -> tuple[JournalEvent, str]:
            return event, await self._spilled(route, event, error)

        request.hand_on(partial(self._answer, route, event.traceparent, began, work))

    async def _answer(
        self,
        route: WebhookRoute,
        traceparent: str,
        began: float,
        work: _Work,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer with what comes of `work`."""
        name = self._spans[route.name]
        with self._tracing.span(name, kind="server", parent=traceparent) as own:
            try:
                event, outcome = await work(own)
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
                self._count(route, outcome, own)
                twiml = EMPTY_TWIML
                if route.responder is not None:
                    twiml = await route.responder.respond(event, began)
                await answers.send_twiml(send, twiml)
                self._seconds[route.name].observe(self._monotonic() - began)

    def _count(self, route: WebhookRoute, outcome: str, traceparent: str) -> None:
        """Count a webhook whose event is stored."""
        self._counts[route.name, outcome].inc()
        request = request_id(traceparent)
        self._debug("webhook stored", route=route.name, outcome=outcome, request_id=request)

    async def _accept(
        self,
        route: WebhookRoute,
        headers: Headers,
        traceparent: str,
        scope: Scope,
        receive: Receive,
    ) -> JournalEvent:
        """Read and verify one request."""
        self._verification.check_head(scope, headers)
        try:
            with self._deadline:
                body = await _read(receive)
        except TimeoutError:
            raise RefusedError(answers.TOO_SLOW) from None
        return self._verification.event(route, scope, headers, body, traceparent)

    async def _store(self, route: WebhookRoute, event: JournalEvent) -> str:
        """Put the event on a disk, and say on which."""
        try:
            await self._journal.publish(event)
        except JournalUnavailableError as unavailable:
            return await self._spilled(route, event, unavailable)
        return "journaled"

    async def _spilled(
        self, route: WebhookRoute, event: JournalEvent, unavailable: JournalUnavailableError
    ) -> str:
        try:
            await self._spill.put(event)
        except SpillUnavailableError as error:
            if route.responder is None:
                raise RefusedError(answers.UNAVAILABLE) from error
            address = route.responder.without_event(event)
            raise RefusedError(answers.elsewhere(address)) from error
        self._log("spilled", reason=str(unavailable))
        return "spilled"

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


def _failing(error: Exception) -> _Work:
    async def work(own: str) -> tuple[JournalEvent, str]:
        nonlocal error
        try:
            raise error
        finally:
            # It refers to whoever called this, who refers to this: only the collector, which
            # comes seldom, would free the request.
            del error

    return work


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
