"""Finding out what became of sends whose outcome is unknown.

Where the provider absorbs repeats, as WhatsApp Web does for one message id, such a message is sent
again by that provider. Elsewhere it never simply is. The provider is asked for what it has sent to
that contact since the first attempt. Ours is the one with the same text that belongs to no other
message: at most one message of a conversation is under way at a time, and all earlier ones have
their provider's id, so there is nothing else that it could be. Of a message with a file the text
is its caption. Of a template only the provider knows the text, so ours is whatever belongs to no
other message.

When the list doesn't show it, that proves little at first: the provider may still be working on a
request whose connection broke. After a grace period the list is believed and the message is sent
again, by the same provider. It begins when this process looks for the first time, and is measured
by a clock that nobody can set: one that is set ahead would make every attempt an old one, and what
the provider is still working on would be sent twice. What remains is a provider that
accepts a message and lists it only after the grace period; Twilio documents no bound for this. And
another program that sends the same text, or anything while our template is under way, from our
number to the same contact at the same time can't be told from us. A
status callback that carries our message id settles the message at any time, also while it waits to
be sent again.

A message that a replay brought back without its end may be with any provider: all are asked. A
conversation may then have several of unknown outcome, so those without a text of their own are
looked up last, and given up rather than sent again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.common.tracing import enter
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import (
    ClaimedSend,
    OutboxStore,
    OutcomeKind,
    Provider,
    ProviderMessage,
    SendOutcome,
)
from services.messaging.usecases.background import drained
from services.messaging.usecases.retrying import RetryPolicy

log = structlog.get_logger(__name__)

_CLOCK_SKEW: Final = timedelta(days=1)
_SMALL_CLOCK_SKEW: Final = timedelta(minutes=2)
_BETWEEN_RELEASES_SECONDS: Final = 60.0
_FORGET_SECONDS: Final = 3600.0
"""A message that nobody looked for in so long is settled, or somebody else looks."""

_LOST: Final = SendOutcome(
    OutcomeKind.REJECTED,
    error_code="lost",
    error_message="a replay brought it back without its end, and whether it was sent can't be told",
)


@dataclass(slots=True)
class _Watch:
    """Looks for an attempt: since when, and when last."""

    since: float
    looked_at: float = 0.0


class Reconciler:
    """Looks up what became of sends whose outcome is unknown.

    Args:
        providers: By the name that rows carry.
        on_accepted: Awaited with the ids of messages that were found, for reports that came before
            these.
        on_due: Called when a message may be sent again.
        grace: So long after the first look the provider's list is believed.
        lease: How long a look may take; afterwards another process may look.
        poll: Pause between rounds.
        first_look: Shortest pause between two looks for the same message.
        last_look: Longest pause between two looks for the same message.
        monotonic: Clock in seconds that nobody can set.
    """

    def __init__(
        self,
        store: OutboxStore,
        providers: Mapping[str, Provider],
        *,
        clock: Clock,
        on_accepted: Callable[[Collection[str]], Awaitable[object]],
        on_due: Callable[[], None],
        grace: timedelta = timedelta(seconds=120),
        lease: timedelta = timedelta(seconds=60),
        poll: timedelta = timedelta(seconds=2),
        first_look: timedelta = timedelta(seconds=2),
        last_look: timedelta = timedelta(seconds=60),
        concurrency: int = 4,
        retry: RetryPolicy | None = None,
        registry: CollectorRegistry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._providers = providers
        self._clock = clock
        self._monotonic = monotonic
        self._on_accepted = on_accepted
        self._on_due = on_due
        self._grace_seconds = grace.total_seconds()
        self._lease = lease
        self._poll_seconds = poll.total_seconds()
        self._first_look_seconds = first_look.total_seconds()
        self._last_look_seconds = last_look.total_seconds()
        self._concurrency = concurrency
        self._retry = retry or RetryPolicy()
        self._lookups_total = Counter(
            "switchboard_send_lookups_total",
            "Looks for a send of unknown outcome by result: accepted, retry, rejected or unknown.",
            ["provider", "outcome"],
            registry=registry,
        )
        self._stop = asyncio.Event()
        self._release_at = 0.0
        self._watches: dict[tuple[str, int], _Watch] = {}

    async def run(self) -> None:
        """Look for ever. When cancelled, finish the looks under way."""
        await drained(self._work(), self._stop.set)

    async def _work(self) -> None:
        while not self._stop.is_set():
            if await self.look() < self._concurrency:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._stop.wait()

    async def look(self) -> int:
        """One round; returns how many messages were looked up."""
        try:
            if abandoned := await self._store.expire_leases():
                log.warning("sends were abandoned; their outcome is looked up", count=abandoned)
            await self._release_stranded()
            messages = await self._store.unknown(limit=self._concurrency, lease=self._lease)
            outcomes = await asyncio.gather(*map(self._look_safely, messages))
            accepted = {
                one.provider_message_id
                for one in outcomes
                if one.kind is OutcomeKind.ACCEPTED and one.provider_message_id
            }
            if accepted:
                await self._on_accepted(accepted)
        except UnavailableError:
            log.warning("looking up outcomes waits for the database")
            return 0
        if any(one.kind is OutcomeKind.RETRY for one in outcomes):
            self._on_due()
        return len(messages)

    async def _release_stranded(self) -> None:
        now = self._monotonic()
        if now < self._release_at:
            return
        self._release_at = now + _BETWEEN_RELEASES_SECONDS
        for key, watch in list(self._watches.items()):
            if now - watch.looked_at > _FORGET_SECONDS:
                del self._watches[key]
        if count := await self._store.release_stranded():
            log.error("messages waited behind nothing", count=count)
            self._on_due()

    async def _look_safely(self, message: ClaimedSend) -> SendOutcome:
        enter(message.traceparent)
        try:
            return await self._look_for(message)
        except UnavailableError:
            raise
        except Exception:
            # It is looked for again when its lease ends; the others must not suffer.
            log.exception("an outcome could not be looked up", message_id=message.message_id)
            return SendOutcome(OutcomeKind.UNKNOWN)

    async def _look_for(self, message: ClaimedSend) -> SendOutcome:
        message, outcome = await self._outcome(message)
        now = self._clock()
        outcome, retry_at = self._retry.apply(message, outcome, now)
        if outcome.kind is OutcomeKind.UNKNOWN:
            retry_at = now + timedelta(seconds=self._next_look_seconds(message))
        self._lookups_total.labels(message.provider, outcome.kind.value).inc()
        log.info(
            "an unknown outcome was looked up",
            message_id=message.message_id,
            outcome=outcome.kind.value,
            attempt=message.attempt,
        )
        await self._store.settle(message, outcome, retry_at)
        return outcome

    async def _outcome(self, message: ClaimedSend) -> tuple[ClaimedSend, SendOutcome]:
        """What became of a message, and with the provider that has it."""
        outcome = await self._outcome_with(message)
        if not message.restored or outcome.kind is not OutcomeKind.RETRY:
            return message, outcome
        # Where it went last may be what the journal doesn't tell.
        for name, provider in self._providers.items():
            if name == message.provider:
                continue
            if provider.absorbs_repeats:
                return message, _LOST
            elsewhere = replace(message, provider=name)
            found = await self._outcome_with(elsewhere)
            if found.kind is OutcomeKind.ACCEPTED:
                return elsewhere, found
            if found.kind is OutcomeKind.UNKNOWN:
                return message, found
        own = self._providers[message.provider]
        # Without a text of its own another may have been taken for it, and it for another.
        return message, outcome if message.body or own.absorbs_repeats else _LOST

    async def _outcome_with(self, message: ClaimedSend) -> SendOutcome:
        provider = self._providers.get(message.provider)
        if provider is None:
            return SendOutcome(OutcomeKind.UNKNOWN, error_code="no_provider")
        if provider.absorbs_repeats:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code="sent_again",
                error_message="it is sent once more under the same id",
            )
        # Before asking: the list must be younger than the end of the grace period.
        grace_is_over = self._watched_seconds(message) >= self._grace_seconds
        try:
            listed = await provider.sent_messages(
                contact_address=message.contact_address,
                own_address=message.own_address,
                since=self._since(message),
            )
        except UnavailableError:
            return SendOutcome(OutcomeKind.UNKNOWN, error_code="provider_unavailable")
        found = await self._unclaimed(message, [one for one in listed if _may_be(message, one)])
        if found is not None:
            return SendOutcome(
                OutcomeKind.ACCEPTED,
                provider_message_id=found.provider_message_id,
                status=found.status,
                error_code=found.error_code,
                error_message=found.error_message,
            )
        if grace_is_over:
            return SendOutcome(
                OutcomeKind.RETRY,
                error_code="not_found",
                error_message="the provider doesn't list it",
            )
        return SendOutcome(OutcomeKind.UNKNOWN, error_code="not_found_yet")

    async def _unclaimed(
        self, message: ClaimedSend, listed: list[ProviderMessage]
    ) -> ProviderMessage | None:
        """The oldest that belongs to no message of ours."""
        known = await self._store.known_provider_ids(
            message.provider, [one.provider_message_id for one in listed]
        )
        ours = [one for one in listed if one.provider_message_id not in known]
        if len(ours) > 1:
            log.error(
                "the provider lists a message more than once",
                message_id=message.message_id,
                count=len(ours),
            )
        return ours[0] if ours else None

    def _since(self, message: ClaimedSend) -> datetime:
        """When the provider may have got a message at the earliest, by the provider's clock."""
        attempt = min(message.first_attempt_at, self._clock())
        # Of a template anything that was sent may be taken for it, so this stays narrow.
        return attempt - (_CLOCK_SKEW if message.template is None else _SMALL_CLOCK_SKEW)

    def _watched_seconds(self, message: ClaimedSend) -> float:
        """How long ago this process looked for an attempt for the first time."""
        now = self._monotonic()
        watch = self._watches.setdefault((message.message_id, message.attempt), _Watch(now))
        watch.looked_at = now
        return now - watch.since

    def _next_look_seconds(self, message: ClaimedSend) -> float:
        """Soon at first, then ever more rarely; once exactly when the grace period is over."""
        watched = self._watched_seconds(message)
        pause = min(max(watched / 2, self._first_look_seconds), self._last_look_seconds)
        until_grace_is_over = self._grace_seconds - watched
        if 0 < until_grace_is_over < pause:
            pause = until_grace_is_over
        return pause


def _may_be(message: ClaimedSend, listed: ProviderMessage) -> bool:
    return message.template is not None or _plain(listed.body) == _plain(message.body)


def _plain(body: str) -> str:
    """Providers trim texts and change line ends."""
    return " ".join(body.split())
