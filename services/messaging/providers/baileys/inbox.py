"""From the bridge's inbox into the journal: a file goes once the journal has its event."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.messaging.ports.clock import Clock
from services.messaging.providers.baileys.disk import QueueUnusableError
from services.messaging.providers.baileys.events import journal_event
from services.messaging.providers.baileys.folder import QueueFolder, TakenFile
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 256
_TIDY_SECONDS: Final = 600.0
_LONGEST_PAUSE_SECONDS: Final = 10.0


class InboxReader:
    """Journals what the bridge wrote, for ever.

    Args:
        poll: Pause between two looks into an empty inbox.
    """

    def __init__(
        self,
        folder: QueueFolder,
        publisher: JournalPublisher,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        poll: timedelta = timedelta(seconds=0.1),
    ) -> None:
        self._folder = folder
        self._publisher = publisher
        self._clock = clock
        self._poll_seconds = poll.total_seconds()
        self._stop = asyncio.Event()
        self._tidy_at = 0.0
        self._prepared = False
        self._held: dict[str, JournalEvent] = {}
        self._files_total = Counter(
            "switchboard_baileys_inbox_files_total",
            "Files of the Baileys bridge by what became of them: journaled or bad.",
            ["outcome"],
            registry=registry,
        )

    async def run(self) -> None:
        """Read for ever. When cancelled, what is being journaled is finished."""
        await drained(self._work(), self._stop.set)

    async def _work(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            try:
                full = await self.step()
            except UnavailableError as error:
                self._prepared = False
                log.warning("the Baileys inbox waits", reason=str(error))
                pause = min(max(2 * pause, 0.25), _LONGEST_PAUSE_SECONDS)
            else:
                pause = 0.0 if full else self._poll_seconds
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def step(self) -> bool:
        """Journal what is there; returns whether there may be more at once.

        Raises:
            UnavailableError: The folder can't be used, or the journal doesn't answer. What was
                taken is kept for the next step.
        """
        await self._put_in_order()
        free = _AT_ONCE - len(self._held)
        taken = await asyncio.to_thread(self._folder.take_events, free)
        for file in taken:
            await self._read(file)
        results = await asyncio.gather(
            *(self._journal(name, event) for name, event in list(self._held.items())),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(taken) == free

    async def _put_in_order(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._prepared:
            await asyncio.to_thread(self._folder.prepare)
            self._prepared = True
        elif now >= self._tidy_at:
            await asyncio.to_thread(self._folder.tidy)
        else:
            return
        self._tidy_at = now + _TIDY_SECONDS

    async def _read(self, file: TakenFile) -> None:
        try:
            if isinstance(file.content, BadDocumentError):
                raise file.content
            self._held[file.name] = journal_event(file.content, self._clock())
        except BadDocumentError as error:
            # Not a failure of ours with a trace: the reason names the field, and never its value.
            log.error("a file of the Baileys bridge can't be read", reason=str(error))  # noqa: TRY400
            await asyncio.to_thread(self._folder.set_event_aside, file.name, error)
            self._files_total.labels("bad").inc()

    async def _journal(self, name: str, event: JournalEvent) -> None:
        await self._publisher.publish(event)
        self._files_total.labels("journaled").inc()
        try:
            await asyncio.to_thread(self._folder.drop_event, name)
        except QueueUnusableError:
            # It comes again at the next start, and is absorbed by its key.
            log.warning("a journaled file of the Baileys inbox could not be removed")
        self._held.pop(name, None)
