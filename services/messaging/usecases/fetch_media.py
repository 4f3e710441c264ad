"""Fetching the files that came with messages, before the provider forgets them."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.common.tracing import enter
from services.messaging.ports.clock import Clock
from services.messaging.ports.media import (
    MediaQueue,
    MediaSource,
    MediaStore,
    MediaTask,
    MediaUnobtainableError,
    StoredFile,
)
from services.messaging.usecases.background import claimed, drained, take_due

log = structlog.get_logger(__name__)

_MAX_PAUSE = timedelta(minutes=10)


class FetchMedia:
    """Takes messages with files still to be fetched, and stores the files.

    Args:
        sources: By the name of the provider.
        lease: How long a message's files may take; afterwards another process may try.
        first_pause: Before the second attempt; doubled after each further one. Twilio announces
            a message at times before its file can be had.
        max_attempts: After so many the last reason stands as the file's problem.
    """

    def __init__(
        self,
        queue: MediaQueue,
        sources: Mapping[str, MediaSource],
        store: MediaStore,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        lease: timedelta = timedelta(minutes=5),
        first_pause: timedelta = timedelta(seconds=3),
        max_attempts: int = 10,
        concurrency: int = 4,
        poll_seconds: float = 1.0,
    ) -> None:
        self._queue = queue
        self._sources = sources
        self._store = store
        self._clock = clock
        self._lease = lease
        self._first_pause = first_pause
        self._max_attempts = max_attempts
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._files_total = Counter(
            "switchboard_media_files_total",
            "Tries to fetch a file by outcome: stored, retry or problem.",
            ["provider", "outcome"],
            registry=registry,
        )

    async def run(self) -> None:
        """Fetch for ever. When cancelled, what is half done is given back at once."""
        await take_due(
            self._due,
            self._take,
            concurrency=self._concurrency,
            poll_seconds=self._poll_seconds,
        )

    async def _due(self, limit: int) -> Sequence[MediaTask]:
        try:
            claim = self._queue.claim(limit=limit, lease=self._lease)
            return await claimed(claim, self._give_back)
        except UnavailableError:
            log.warning("fetching files waits for the database")
            return ()

    async def _give_back(self, tasks: Sequence[MediaTask]) -> None:
        for task in tasks:
            await self._queue.settle(task, {}, self._clock())

    async def _take(self, task: MediaTask) -> None:
        enter(task.traceparent)
        results: dict[int, StoredFile | str] = {}
        reasons: dict[int, str] = dict.fromkeys(task.urls, "there was no time for it")
        try:
            # Some of the lease is left for writing down what came of it.
            async with asyncio.timeout(0.8 * self._lease.total_seconds()):
                for place, url in task.urls.items():
                    await self._fetch(task, place, url, results, reasons)
        except TimeoutError:
            log.warning("a message's files took too long", message_id=task.message_id)
        except asyncio.CancelledError:
            await self._settle(task, results, reasons, stopping=True)
            raise
        await drained(self._settle(task, results, reasons))

    async def _fetch(
        self,
        task: MediaTask,
        place: int,
        url: str,
        results: dict[int, StoredFile | str],
        reasons: dict[int, str],
    ) -> None:
        source = self._sources.get(task.provider)
        if source is None:
            reasons[place] = f"the provider {task.provider} is not configured"
            return
        try:
            results[place] = await self._store.put(await source.fetch(url))
        except MediaUnobtainableError as error:
            results[place] = str(error)
        except UnavailableError as error:
            reasons[place] = str(error)
        except Exception:
            log.exception("fetching a file failed", message_id=task.message_id)
            reasons[place] = "it could not be fetched"

    async def _settle(
        self,
        task: MediaTask,
        results: dict[int, StoredFile | str],
        reasons: Mapping[int, str],
        *,
        stopping: bool = False,
    ) -> None:
        left = task.urls.keys() - results.keys()
        if left and not stopping and task.attempt >= self._max_attempts:
            results |= {place: reasons[place] for place in left}
            left = set()
        retry_at = None
        if left:
            retry_at = self._clock() + (timedelta() if stopping else self._pause(task.attempt))
        try:
            await self._queue.settle(task, results, retry_at)
        except UnavailableError:
            log.warning("fetched files could not be noted; they are fetched again")
            return
        self._report(task, results, {place: reasons[place] for place in left})

    def _report(
        self,
        task: MediaTask,
        results: Mapping[int, StoredFile | str],
        left: Mapping[int, str],
    ) -> None:
        for result in results.values():
            problem = result if isinstance(result, str) else None
            self._files_total.labels(task.provider, "problem" if problem else "stored").inc()
            if problem:
                log.error("a file was given up", message_id=task.message_id, reason=problem)
        for reason in left.values():
            self._files_total.labels(task.provider, "retry").inc()
            log.info("a file is not there yet", message_id=task.message_id, reason=reason)

    def _pause(self, attempt: int) -> timedelta:
        pause = min(self._first_pause * (1 << min(attempt - 1, 20)), _MAX_PAUSE)
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 - Spreading load needs no secrecy.
