"""Sending what is due: claim, call the provider, write down what came of it.

Every claim has a lease. The provider is called only while enough of it is left for the call to
end within it, so a message whose lease has run out is not being sent by a process that merely is
slow; only one that stood still between that check and its next instruction could still send.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import (
    ClaimedSend,
    OutboxStore,
    OutcomeKind,
    Provider,
    SendOutcome,
)
from services.messaging.usecases.background import drained
from services.messaging.usecases.retrying import RetryPolicy

log = structlog.get_logger(__name__)

_MAX_PAUSE_SECONDS = 60.0
_FIRST_SETTLE_PAUSE_SECONDS = 0.1
_MAX_SETTLE_PAUSE_SECONDS = 2.0


class Dispatcher:
    """Hands messages that are due to their providers.

    Args:
        providers: By the name that rows carry.
        on_accepted: Awaited after a message was accepted, for reports that came before its id.
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
        on_accepted: Callable[[], Awaitable[object]],
        concurrency: int = 16,
        lease: timedelta = timedelta(seconds=60),
        send_timeout: timedelta = timedelta(seconds=20),
        poll: timedelta = timedelta(seconds=1),
        first_look: timedelta = timedelta(seconds=2),
        retry: RetryPolicy | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if 2 * send_timeout > lease:
            raise ValueError("the lease must be at least twice the send timeout")
        self._store = store
        self._providers = providers
        self._clock = clock
        self._on_accepted = on_accepted
        self._concurrency = concurrency
        self._lease = lease
        self._send_seconds = send_timeout.total_seconds()
        self._poll_seconds = poll.total_seconds()
        self._first_look = first_look
        self._retry = retry or RetryPolicy()
        self._attempts_total = Counter(
            "switchboard_send_attempts_total",
            "Attempts to send a message by outcome: accepted, rejected, retry or unknown.",
            ["provider", "outcome"],
            registry=registry,
        )
        self._wake = asyncio.Event()
        self._stopping = False
        self._paused_until = 0.0
        self._some_accepted = False

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._wake.set()

    async def run(self) -> None:
        """Send for ever. When cancelled, claim nothing more and finish what is under way."""
        await drained(self._work(), self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _work(self) -> None:
        running: set[asyncio.Task[None]] = set()

        def finished(task: asyncio.Task[None]) -> None:
            running.discard(task)
            # Its place is free, and so is its conversation.
            self._wake.set()

        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._wake.clear()
            await self._tell_accepted()
            lease_ends = loop.time() + self._lease.total_seconds()
            for message in await self._claim(self._concurrency - len(running)):
                task = asyncio.create_task(self._deliver(message, lease_ends))
                running.add(task)
                task.add_done_callback(finished)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()
        if running:
            await asyncio.wait(running)
        await self._tell_accepted()

    async def _claim(self, free: int) -> Sequence[ClaimedSend]:
        if free <= 0 or asyncio.get_running_loop().time() < self._paused_until:
            return ()
        try:
            return await self._store.claim(limit=free, lease=self._lease)
        except UnavailableError:
            log.warning("sending waits for the database")
            return ()

    async def _deliver(self, message: ClaimedSend, lease_ends: float) -> None:
        outcome = await self._send(message, lease_ends)
        self._attempts_total.labels(message.provider, outcome.kind.value).inc()
        if outcome.kind is not OutcomeKind.ACCEPTED:
            log.warning(
                "a message was not sent",
                message_id=message.message_id,
                outcome=outcome.kind.value,
                error_code=outcome.error_code,
                attempt=message.attempt,
            )
        if outcome.kind is OutcomeKind.RETRY and outcome.retry_after is not None:
            self._pause(outcome.retry_after)
        now = self._clock()
        outcome, retry_at = self._retry.apply(message, outcome, now)
        if outcome.kind is OutcomeKind.UNKNOWN:
            retry_at = now + self._first_look
        await self._settle(message, outcome, retry_at, lease_ends)

    async def _send(self, message: ClaimedSend, lease_ends: float) -> SendOutcome:
        provider = self._providers.get(message.provider)
        if provider is None:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code="no_provider",
                error_message=f"the provider {message.provider} is not configured",
            )
        if asyncio.get_running_loop().time() + self._send_seconds > lease_ends:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code="too_late",
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
                OutcomeKind.UNKNOWN, error_code="internal", error_message=type(error).__name__
            )

    def _pause(self, wished: timedelta) -> None:
        """Leave the provider alone for as long as it asked, for what holds one holds all."""
        seconds = min(wished.total_seconds(), _MAX_PAUSE_SECONDS)
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    async def _settle(
        self, message: ClaimedSend, outcome: SendOutcome, retry_at: datetime, lease_ends: float
    ) -> None:
        pause = _FIRST_SETTLE_PAUSE_SECONDS
        while True:
            try:
                await self._store.settle(message, outcome, retry_at)
            except UnavailableError:
                if asyncio.get_running_loop().time() + pause > lease_ends:
                    log.warning(
                        "an outcome was not recorded; it will be looked up",
                        message_id=message.message_id,
                    )
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_SETTLE_PAUSE_SECONDS)
            except Exception:
                log.exception("an outcome was not recorded", message_id=message.message_id)
                return
            else:
                self._some_accepted |= outcome.kind is OutcomeKind.ACCEPTED
                return

    async def _tell_accepted(self) -> None:
        """Once for all that were accepted since the last time."""
        if not self._some_accepted:
            return
        self._some_accepted = False
        try:
            await self._on_accepted()
        except UnavailableError:
            self._some_accepted = True
            log.warning("early reports wait for the database")
