"""Sending what is due: claim, call the provider, write down what came of it.

Every claim has a lease. The provider is called only while enough of it is left for the call to
end within it, so a message whose lease has run out is not being sent by a process that merely is
slow; only one that stood still between that check and the request's way out could still send.
What is left is asked of two clocks: one that nobody can set, and the time of day, by which others
take over, and which alone goes on while a machine is suspended.

While a provider's breaker is open, or it asked us to wait, nothing is claimed for it: no attempt is
burnt. With several providers its messages go to the next that is open, as far as it is certain that
they were never sent.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.common.errors import UnavailableError
from services.common.tracing import enter, new_traceparent
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import (
    ClaimedSend,
    OutboxStore,
    OutcomeKind,
    Provider,
    Routes,
    SendOutcome,
)
from services.messaging.usecases.accepted import Accepted
from services.messaging.usecases.background import drained
from services.messaging.usecases.breaker import Breaker
from services.messaging.usecases.pace import SenderPace
from services.messaging.usecases.retrying import RetryPolicy

log = structlog.get_logger(__name__)

_NO_PROVIDER = "no_provider"
_TOO_LATE = "too_late"
_INTERNAL = "internal"
# What these say is about us, not about the provider.
_OUR_OWN = frozenset({_NO_PROVIDER, _TOO_LATE, _INTERNAL})

_FIRST_SETTLE_PAUSE_SECONDS = 0.1
_MAX_SETTLE_PAUSE_SECONDS = 2.0


class Dispatcher:
    """Hands messages that are due to their providers.

    Args:
        providers: By the name that rows carry. Where one is unavailable the first other one that
            isn't takes over.
        breakers: One for each provider.
        pace: How many messages may go out a second.
        on_accepted: Awaited with the ids that a provider gave to messages, for reports that came
            before these.
        lease: After this long another process may look what became of a message.
        send_timeout: How long one call to a provider may take; at most half the lease.
        first_look: How long after an unknown outcome it is looked up.

    Raises:
        ValueError: The lease leaves no room for the call and for recording its outcome.
    """

    def __init__(
        self,
        store: OutboxStore,
        providers: Mapping[str, Provider],
        *,
        clock: Clock,
        on_accepted: Callable[[Collection[str]], Awaitable[object]],
        concurrency: int = 16,
        lease: timedelta = timedelta(seconds=60),
        send_timeout: timedelta = timedelta(seconds=20),
        poll: timedelta = timedelta(seconds=1),
        first_look: timedelta = timedelta(seconds=2),
        retry: RetryPolicy | None = None,
        breakers: Mapping[str, Breaker] | None = None,
        pace: SenderPace | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if 2 * send_timeout > lease:
            raise ValueError("the lease must be at least twice the send timeout")
        self._store = store
        self._providers = providers
        self._clock = clock
        self._concurrency = concurrency
        self._lease = lease
        self._send_seconds = send_timeout.total_seconds()
        self._poll_seconds = poll.total_seconds()
        self._first_look = first_look
        self._retry = retry or RetryPolicy()
        self._breakers = breakers or {name: Breaker(name, clock) for name in providers}
        self._pace = pace
        self._attempts_total = Counter(
            "switchboard_send_attempts_total",
            "Attempts to send a message by outcome: accepted, rejected, retry or unknown.",
            ["provider", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "switchboard_send_seconds",
            "Time that providers took to answer an attempt to send a message.",
            ["provider"],
            buckets=(0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0),
            registry=registry,
        )
        for name in providers:
            self._seconds.labels(name)
            for kind in OutcomeKind:
                self._attempts_total.labels(name, kind.value)
        self._wake = asyncio.Event()
        self._to_look = True
        self._left_some = True
        self._stopping = False
        self._accepted = Accepted(on_accepted, self._wake.set)

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._to_look = True
        self._wake.set()

    async def run(self) -> None:
        """Send for ever. When cancelled, claim nothing more and finish what is under way."""
        await drained(self._work(), self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _work(self) -> None:
        running: set[asyncio.Task[bool]] = set()

        def finished(task: asyncio.Task[bool]) -> None:
            running.discard(task)
            # Its place is free, and so is its conversation; nearly always nothing waits for them.
            if self._left_some or task.cancelled() or task.exception() or task.result():
                self._to_look = True
            self._wake.set()

        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._wake.clear()
            await self._accepted.told()
            if self._to_look:
                self._to_look = False
                lease_ends = loop.time() + self._lease.total_seconds()
                for message in await self._claim(self._concurrency - len(running)):
                    task = asyncio.create_task(self._deliver(message, lease_ends))
                    running.add(task)
                    task.add_done_callback(finished)
            try:
                async with asyncio.timeout(self._seconds_to_look(running)):
                    await self._wake.wait()
            except TimeoutError:
                self._to_look = True
        if running:
            await asyncio.wait(running)
        await self._accepted.told(at_once=True)

    def _seconds_to_look(self, running: Collection[object]) -> float:
        if self._pace is None or len(running) >= self._concurrency:
            return self._poll_seconds
        # A message may be due and wait for nothing but the pace.
        return min(self._poll_seconds, self._pace.seconds_to_next() or self._poll_seconds)

    async def _claim(self, free: int) -> Sequence[ClaimedSend]:
        if self._pace is not None:
            free = min(free, self._pace.available())
        claimed: list[ClaimedSend] = []
        # What a breaker holds back may be tried when a call ends.
        self._left_some = any(breaker.free() is not None for breaker in self._breakers.values())
        try:
            for limit, routes in self._routes():
                most = min(limit or free, free - len(claimed))
                found = (
                    await self._store.claim(limit=most, lease=self._lease, routes=routes)
                    if most > 0
                    else ()
                )
                self._left_some |= len(found) >= most
                self._begin(found)
                claimed += found
        except UnavailableError:
            self._left_some = True
            log.warning("sending waits for the database")
        return claimed

    def _begin(self, messages: Sequence[ClaimedSend]) -> None:
        for message in messages:
            if message.provider in self._breakers:
                self._breakers[message.provider].started()
        if self._pace is not None:
            self._pace.take(len(messages))

    def _routes(self) -> Iterator[tuple[int | None, Routes]]:
        """How many messages may be claimed by which routes: where few may go first."""
        names = frozenset(self._providers)
        free = {name: self._breakers[name].free() for name in self._providers}
        sound = [name for name in self._providers if self._breakers[name].is_sound()]
        # A provider that is only busy keeps its messages, and so does one that is to be tried: else
        # what comes up between these two claims would always go elsewhere.
        given_up = [name for name in self._providers if name not in sound and not free[name]]
        instead = dict.fromkeys(given_up, sound[0]) if sound else {}
        for name, count in free.items():
            if count:
                takes = instead if name in instead.values() else {}
                yield count, Routes(closed=names - {name}, instead=takes)
        opened = frozenset(name for name, count in free.items() if count is None)
        if opened:
            takes = instead if opened.intersection(instead.values()) else {}
            yield None, Routes(closed=names - opened, instead=takes)

    async def _deliver(self, message: ClaimedSend, lease_ends: float) -> bool:
        """Try to send; returns whether something else may be due now."""
        enter(message.traceparent or new_traceparent())
        outcome = await self._send(message, lease_ends)
        self._attempts_total.labels(message.provider, outcome.kind.value).inc()
        if outcome.kind is OutcomeKind.ACCEPTED:
            log.info("a message was sent", message_id=message.message_id, attempt=message.attempt)
        else:
            log.warning(
                "a message was not sent",
                message_id=message.message_id,
                outcome=outcome.kind.value,
                error_code=outcome.error_code,
                attempt=message.attempt,
            )
        now = self._clock()
        outcome, retry_at = self._retry.apply(message, outcome, now)
        move_to = None
        if outcome.kind is OutcomeKind.UNKNOWN:
            retry_at = now + self._first_look
        elif outcome.kind is OutcomeKind.RETRY and outcome.error_code != _TOO_LATE:
            move_to = self._next_provider(message.provider)
        return await self._settle(message, outcome, retry_at, move_to, lease_ends)

    def _next_provider(self, failed: str) -> str | None:
        """Who tries a message again that `failed` certainly didn't send.

        Only ever the next in order, so that two that fail don't pass a message to and fro.
        """
        names = list(self._providers)
        later = names[names.index(failed) + 1 :] if failed in names else names
        return next((name for name in later if self._breakers[name].is_sound()), None)

    async def _send(self, message: ClaimedSend, lease_ends: float) -> SendOutcome:
        said: SendOutcome | None = None
        began = time.perf_counter()
        try:
            said = await self._call(message, lease_ends)
            return said
        finally:
            took = time.perf_counter() - began
            if message.provider in self._breakers:
                ours = said is None or said.error_code in _OUR_OWN
                self._breakers[message.provider].ended(
                    None if ours else said, timedelta(seconds=took)
                )
                if not ours:
                    self._seconds.labels(message.provider).observe(took)

    async def _call(self, message: ClaimedSend, lease_ends: float) -> SendOutcome:
        provider = self._providers.get(message.provider)
        if provider is None:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code=_NO_PROVIDER,
                error_message=f"the provider {message.provider} is not configured",
            )
        left = lease_ends - asyncio.get_running_loop().time()
        left_by_day = (message.lease_until - self._clock()).total_seconds()
        if min(left, left_by_day) < self._send_seconds:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code=_TOO_LATE,
                error_message="the claim was about to end before the provider was called",
            )
        try:
            async with asyncio.timeout(self._send_seconds):
                return await provider.send(message)
        except TimeoutError:
            return SendOutcome(
                OutcomeKind.UNKNOWN,
                error_code="timeout",
                error_message="the provider did not answer in time",
            )
        except Exception as error:
            log.exception("a provider failed in an unforeseen way", message_id=message.message_id)
            return SendOutcome(
                OutcomeKind.UNKNOWN, error_code=_INTERNAL, error_message=type(error).__name__
            )

    async def _settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        move_to: str | None,
        lease_ends: float,
    ) -> bool:
        pause = _FIRST_SETTLE_PAUSE_SECONDS
        while True:
            try:
                released = await self._store.settle(message, outcome, retry_at, move_to=move_to)
            except UnavailableError:
                if asyncio.get_running_loop().time() + pause > lease_ends:
                    log.warning(
                        "an outcome was not recorded; it will be looked up",
                        message_id=message.message_id,
                    )
                    return True
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_SETTLE_PAUSE_SECONDS)
            except Exception:
                log.exception("an outcome was not recorded", message_id=message.message_id)
                return True
            else:
                if outcome.kind is OutcomeKind.ACCEPTED and outcome.provider_message_id:
                    self._accepted.add(outcome.provider_message_id)
                return released
