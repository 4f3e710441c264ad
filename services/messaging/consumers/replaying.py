"""A part of the journal once more, in its order, without acknowledging anything."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from services.common.errors import UnavailableError
from services.common.journal.reading import count_events, read_events, sequence_at
from services.common.journal.streams import INGEST_STREAM
from services.messaging.consumers.decoding import PoisonError, Translator, decode
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from services.messaging.ports.receiving import IngestResult

log = structlog.get_logger(__name__)

_TRIES = 8
_LONGEST_PAUSE_SECONDS = 30.0
_KEPT_REASONS = 100

Content = InboundMessage | StatusReport


class Handler(Protocol):
    """Stores a batch: `usecases.receive.Receive`."""

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> IngestResult: ...


@dataclass
class ReplayProgress:
    """How far a replay is.

    Attributes:
        total: Events there are to read.
        read: Events that have been stored or skipped.
        oldest: When the first of these came into the journal.
        position: When the last of these did.
        skipped: Events that can't be understood or stored, as they couldn't before.
        failed: Those among them that failed in a way nobody foresaw.
        reasons: Sequence in the journal and reason of the first skipped ones.
        complete: Whether it has come to the end.
    """

    total: int = 0
    read: int = 0
    oldest: datetime | None = None
    position: datetime | None = None
    messages: int = 0
    stored: int = 0
    reports: int = 0
    applied: int = 0
    parked: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)
    complete: bool = False

    @property
    def percent(self) -> float:
        """From 0 to 100."""
        return min(100 * self.read / self.total, 100.0) if self.total else 100.0


class Replay:
    """Gives a part of the journal to a handler.

    Args:
        handle: Must leave what it knows already as it is.
        translators: By the name of the provider.
        progress: Kept up to date.
    """

    def __init__(
        self,
        js: JetStreamContext,
        handle: Handler,
        translators: Mapping[str, Translator],
        *,
        progress: ReplayProgress,
        batch_size: int = 500,
        first_pause_seconds: float = 0.5,
    ) -> None:
        self._js = js
        self._handle = handle
        self._translators = translators
        self._progress = progress
        self._batch_size = batch_size
        self._first_pause_seconds = first_pause_seconds

    async def run(
        self,
        *,
        since: datetime,
        until: datetime | None,
        kind: str | None,
        stop: asyncio.Event,
    ) -> None:
        """Replay what came into the journal from `since` on, and, if given, before `until`.

        Without `until` it ends where the journal ends now. When `stop` is set, it ends after
        the batch in hand.

        Args:
            kind: Last part of the subject: "message" or "status"; None for all.

        Raises:
            UnavailableError: The journal or the database doesn't answer for minutes.
            nats.errors.Error: The journal doesn't answer at the beginning.
        """
        subject = f"ingest.*.{kind}" if kind else None
        first = await sequence_at(self._js, INGEST_STREAM, since)
        last = (await self._js.stream_info(INGEST_STREAM)).state.last_seq
        if until is not None:
            last = min(last, await sequence_at(self._js, INGEST_STREAM, until) - 1)
        self._progress.total = await count_events(
            self._js, INGEST_STREAM, first=first, last=last, subject=subject
        )
        reading = read_events(
            self._js,
            INGEST_STREAM,
            first=first,
            last=last,
            subject=subject,
            batch_size=self._batch_size,
        )
        async with contextlib.aclosing(reading) as batches:
            async for batch in batches:
                if stop.is_set():
                    return
                if not await self._take(batch, stop):
                    return
        self._progress.complete = not stop.is_set()

    async def _take(self, batch: Sequence[Msg], stop: asyncio.Event) -> bool:
        """Whether a batch was taken in; it wasn't when stopped while waiting for the database."""
        events: list[tuple[Msg, Content]] = []
        for message in batch:
            try:
                content = decode(message.headers, message.data, self._translators)
            except PoisonError as error:
                self._skip(message, str(error))
            else:
                events.append((message, content))
        if not await self._store(events, stop):
            return False
        self._progress.read += len(batch)
        self._progress.oldest = self._progress.oldest or batch[0].metadata.timestamp
        self._progress.position = batch[-1].metadata.timestamp
        return True

    async def _store(self, events: Sequence[tuple[Msg, Content]], stop: asyncio.Event) -> bool:
        try:
            return await self._store_together([content for _, content in events], stop)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - It is met again, and logged, alone.
            log.warning("a batch failed, its events go one by one", error=type(error).__name__)
        for message, content in events:
            try:
                if not await self._store_together([content], stop):
                    return False
            except UnavailableError:
                raise
            except ValueError:
                self._skip(message, "a value can't be stored")
            except Exception as error:
                log.exception("an event failed")
                self._progress.failed += 1
                self._skip(message, f"failed: {type(error).__name__}")
        return True

    async def _store_together(self, contents: Sequence[Content], stop: asyncio.Event) -> bool:
        messages = [one for one in contents if isinstance(one, InboundMessage)]
        reports = [one for one in contents if isinstance(one, StatusReport)]
        pause = self._first_pause_seconds
        for attempt in range(1, _TRIES + 1):
            try:
                result = await self._handle(messages, reports)
                break
            except UnavailableError as error:
                if attempt == _TRIES:
                    raise
                log.warning("the database makes us wait", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
                return False
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        self._progress.messages += len(messages)
        self._progress.reports += len(reports)
        self._progress.stored += result.stored
        self._progress.applied += result.applied
        self._progress.parked += result.parked
        return True

    def _skip(self, message: Msg, reason: str) -> None:
        self._progress.skipped += 1
        if len(self._progress.reasons) < _KEPT_REASONS:
            self._progress.reasons.append((message.metadata.sequence.stream, reason))
