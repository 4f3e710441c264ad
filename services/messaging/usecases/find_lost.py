"""Finding events whose webhooks never came: the provider lists them, and the store lacks them.

Twilio gives a webhook up after one or two tries, so what happens while nothing of ours answers is
lost unless somebody asks. What is found goes through the journal like any webhook, under the same
natural key, so that one which comes after all, or another process that finds it too, changes
nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.common.journal.events import EventKind
from services.messaging.domain.message import MessageStatus
from services.messaging.ports.clock import Clock
from services.messaging.ports.recovering import (
    EventHistory,
    EventJournal,
    KnownMessages,
    ListedEvent,
)
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

IsLost = Callable[[ListedEvent, MessageStatus | None], bool]

_REST: Final = 3.0
"""So many times as long as a page took nothing is listed, so that nobody waits for an answer
because a day's messages are compared."""
_LONGEST_REST_SECONDS: Final = 1.0


class FindLostWebhooks:
    """Compares a provider's list with the store, at the start and regularly.

    Args:
        interval: Pause between two comparisons.
        look_back: How far each reaches back.
        grace: What happened more recently than this may still be on its way.
        sleep: Waits so many seconds.
        monotonic: Clock in seconds that nobody can set.
    """

    def __init__(
        self,
        history: EventHistory,
        known: KnownMessages,
        journal: EventJournal,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        interval: timedelta,
        look_back: timedelta,
        grace: timedelta = timedelta(seconds=60),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._history = history
        self._known = known
        self._journal = journal
        self._clock = clock
        self._interval = interval
        self._look_back = look_back
        self._grace = grace
        self._sleep = sleep
        self._monotonic = monotonic
        # Found once: an event that could not be stored must not come back with every round.
        self._found: dict[str, datetime] = {}
        self._found_total = 0
        self._looked_at: datetime | None = None
        self._gaps_total = Counter(
            "switchboard_webhook_gaps_total",
            "Events that the provider lists and no webhook brought, by kind: message or status.",
            ["provider", "kind"],
            registry=registry,
        )
        for kind in ("message", "status"):
            self._gaps_total.labels(history.name, kind)

    @property
    def found_total(self) -> int:
        """How many lost webhooks were made up for since the start."""
        return self._found_total

    @property
    def looked_at(self) -> datetime | None:
        """When the last comparison ended well; aware, UTC."""
        return self._looked_at

    async def run(self) -> None:
        """Compare for ever; may be cancelled at any time."""
        while True:
            try:
                await self.look()
                self._looked_at = self._clock()
            except UnavailableError as error:
                log.warning("lost webhooks can't be looked for now", reason=str(error))
            except Exception:
                log.exception("looking for lost webhooks failed")
            await self._sleep(self._interval.total_seconds())

    async def look(self) -> int:
        """One comparison; returns how many events were journaled.

        Raises:
            UnavailableError: The provider, the database or the journal doesn't answer.
        """
        now = self._clock()
        since = now - self._look_back
        self._found = {key: at for key, at in self._found.items() if at >= since}
        messages = await self._missing(self._history.received(since), _never_came)
        statuses = await self._missing(self._history.reported(since), _is_behind)
        if not messages and not statuses:
            return 0
        # What is missing may only be waiting its turn in the journal.
        if not await self._journal.caught_up():
            log.info("the journal is behind: lost webhooks are looked for later")
            return 0
        messages = await self._lost(messages, _never_came)
        statuses = await self._lost(statuses, _is_behind)
        for event in (*messages, *statuses):
            await self._journal_event(event)
        if messages or statuses:
            log.warning(
                "webhooks were lost and made up for",
                messages=len(messages),
                statuses=len(statuses),
            )
        return len(messages) + len(statuses)

    async def _missing(
        self, pages: AsyncIterator[Sequence[ListedEvent]], is_lost: IsLost
    ) -> list[ListedEvent]:
        missing: list[ListedEvent] = []
        began = self._monotonic()
        async for page in pages:
            recent = self._clock() - self._grace
            settled = [one for one in page if one.at <= recent and one.key not in self._found]
            missing += await self._lost(settled, is_lost)
            rest = _REST * (self._monotonic() - began)
            await self._sleep(min(rest, _LONGEST_REST_SECONDS))
            began = self._monotonic()
        return missing

    async def _lost(self, events: Sequence[ListedEvent], is_lost: IsLost) -> list[ListedEvent]:
        if not events:
            return []
        ids = {event.provider_message_id for event in events}
        known = await drained(self._known.statuses(self._history.name, ids))
        return [one for one in events if is_lost(one, known.get(one.provider_message_id))]

    async def _journal_event(self, event: ListedEvent) -> None:
        more = await self._history.media(event) if event.has_media else ()
        is_message = event.kind is EventKind.WHATSAPP_MESSAGE
        await self._journal.add(
            self._history.name,
            event,
            [*event.parameters, *more],
            # A message keeps its place in the conversation, and its age. Of a status nobody knows
            # when it came about, so it says when we learnt of it, as a webhook does.
            received_at=event.at if is_message else self._clock(),
        )
        self._found[event.key] = event.at
        self._found_total += 1
        self._gaps_total.labels(self._history.name, "message" if is_message else "status").inc()


def _never_came(_: ListedEvent, known: MessageStatus | None) -> bool:
    return known is None


def _is_behind(event: ListedEvent, known: MessageStatus | None) -> bool:
    # A message that isn't known was sent by another program, or by a send still being looked up.
    return known is not None and event.status is not None and event.status.rank > known.rank
