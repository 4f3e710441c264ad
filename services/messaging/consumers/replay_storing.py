"""Storing what a replay reads: together where it goes, otherwise event by event."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from nats.aio.msg import Msg

from services.common.errors import UnavailableError
from services.messaging.consumers.replay_groups import Content, Webhook
from services.messaging.consumers.replay_progress import ReplayProgress
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import StatusReport
from services.messaging.ports.acts import Act, ActRestorer
from services.messaging.ports.receiving import IngestResult
from services.messaging.usecases.calls.take_in import VoiceEvent

log = structlog.get_logger(__name__)

_TRIES = 8
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_KEPT_REASONS = 100


class Handler(Protocol):
    """Stores a batch: `usecases.receive.Receive`."""

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> IngestResult: ...


class ReplayStoring:
    """Gives events of webhooks to a handler, and what messaging did to a restorer.

    Args:
        handle: Must leave what it knows already as it is.
        take_in_calls: Takes events of calls, likewise.
        join: Sees to it that names which are one person's are one contact's.
        progress: Kept up to date.
    """

    def __init__(
        self,
        handle: Handler,
        restorer: ActRestorer,
        *,
        take_in_calls: Callable[[Sequence[VoiceEvent]], Awaitable[None]],
        join: Callable[[Sequence[SamePerson]], Awaitable[object]],
        progress: ReplayProgress,
    ) -> None:
        self._handle = handle
        self._restorer = restorer
        self._take_in_calls = take_in_calls
        self._join = join
        self._progress = progress
        self._orphans: list[tuple[Msg, Act]] = []

    async def store(self, events: Sequence[tuple[Msg, Content]], stop: asyncio.Event) -> bool:
        """Whether events were stored; they weren't when stopped while waiting for the database.

        Raises:
            UnavailableError: It doesn't answer for minutes.
        """
        try:
            return await self._store_together(events, stop)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - It is met again, and logged, alone.
            log.warning("a batch failed, its events go one by one", error=type(error).__name__)
        for event in events:
            try:
                if not await self._store_together([event], stop):
                    return False
            except UnavailableError:
                raise
            except ValueError:
                self.skip(event[0], "a value can't be stored")
            except Exception as error:
                log.exception("an event failed")
                self._progress.failed += 1
                self.skip(event[0], f"failed: {type(error).__name__}")
        return True

    async def _store_together(
        self, events: Sequence[tuple[Msg, Content]], stop: asyncio.Event
    ) -> bool:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, _TRIES + 1):
            try:
                await self._store_once(events)
                return True
            except UnavailableError as error:
                if attempt == _TRIES:
                    raise
                log.warning("the database makes us wait", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
                return False
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return True

    async def _store_once(self, events: Sequence[tuple[Msg, Content]]) -> None:
        contents = [content for _, content in events]
        messages = [one for one in contents if isinstance(one, InboundMessage)]
        reports = [one for one in contents if isinstance(one, StatusReport)]
        calls = [one for one in contents if isinstance(one, VoiceEvent)]
        people = [one for one in contents if isinstance(one, SamePerson)]
        acts = {
            id(one): (message, one)
            for message, one in events
            if not isinstance(one, Webhook | VoiceEvent)
        }
        progress = self._progress
        if calls:
            await self._take_in_calls(calls)
        if people:
            await self._join(people)
        if not acts:
            result = await self._handle(messages, reports)
        else:
            # Messages that we answered, then the answers, then what became of these.
            result = await self._handle(messages, [])
            done = await self._restorer.restore([act for _, act in acts.values()])
            self._orphans += [acts[id(orphan)] for orphan in done.orphans]
            progress.acts += len(acts)
            progress.restored += done.new
            reported = await self._handle([], reports)
            result = IngestResult(result.stored, reported.applied, reported.parked)
        progress.messages += len(messages)
        progress.reports += len(reports)
        progress.calls += len(calls)
        progress.stored += result.stored
        progress.applied += result.applied
        progress.parked += result.parked

    async def adopt_orphans(self, stop: asyncio.Event) -> bool:
        """Once more what came before the message that it is about; whether that is done."""
        again, self._orphans = self._orphans, []
        if not again:
            return True
        self._progress.acts -= len(again)
        if not await self.store(again, stop):
            return False
        for message, _ in self._orphans:
            self.skip(message, "its message is neither in the journal nor in the database")
        return True

    def skip(self, message: Msg, reason: str) -> None:
        """Take note of an event that is left out."""
        self._progress.skipped += 1
        if len(self._progress.reasons) < _KEPT_REASONS:
            place = f"{message.metadata.stream} {message.metadata.sequence.stream}"
            self._progress.reasons.append((place, reason))
