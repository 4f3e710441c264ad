"""A consumer of the journal: fetches batches, has them stored, and acknowledges what is stored.

Any number of replicas share one durable consumer. Its `max_deliver` is unlimited, because the
server would stop delivering in silence: its advisory reaches only whoever listens at that moment.
Instead an event that goes on failing is moved to the stream `DEAD` here, where it is kept. Waiting
for the database doesn't count: that is no fault of the event, however long it takes.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from prometheus_client import Counter

from services.common.errors import UnavailableError
from services.common.journal.streams import INGEST_STREAM, ensure_ingest_consumer
from services.common.tracing import NoTracing, Tracing
from services.messaging.consumers.delivered import Deliveries, broker_may_be_away, spread
from services.messaging.consumers.delivery import Delivery
from services.messaging.consumers.pulling import Pull
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_MAX_PAUSE_SECONDS = 2.0
"""Between looks for a database or a broker that is away: customers wait for what has come in."""

_CHECK_SECONDS = 30.0
_BATCH_BYTES = 8 * 1024**2
"""Eight times what a batch of usual events has: memory stays bounded by any."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer of the journal.

    Attributes:
        subjects: What it gets; may hold wildcards.
        patient: Subjects of events that nobody waits for: they wait a moment for company.
    """

    name: str
    subjects: str
    patient: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer goes about it.

    Attributes:
        fetch_seconds: How long one request waits for events; also the longest a stop takes
            when there is nothing to do.
        ack_wait_seconds: Lease of a delivered event; extended while it is worked on. What a
            process had that was killed waits for so long.
        max_attempts: Deliveries after which an event that fails alone goes to `DEAD`.
        patience_seconds: How long events that nobody waits for wait for others.
    """

    batch_size: int = 1000
    fetch_seconds: float = 1.0
    ack_wait_seconds: float = 5.0
    max_attempts: int = 10
    first_delay_seconds: float = 1.0
    patience_seconds: float = 0.1
    monotonic: Callable[[], float] = time.monotonic


class JournalConsumer(Generic[T]):
    """Consumes what a durable consumer gets of the journal until cancelled.

    Args:
        client: May still be connecting.
        decode, store, events_total: As `Deliveries` has them.
    """

    def __init__(
        self,
        client: Client,
        durable: Durable,
        *,
        decode: Callable[[Mapping[str, str] | None, bytes], T],
        store: Callable[[Sequence[T]], Awaitable[object]],
        events_total: Counter,
        options: ConsumerOptions | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._client = client
        self._durable = durable
        self._options = options or ConsumerOptions()
        self._deliveries = Deliveries(
            client,
            decode=decode,
            store=store,
            events_total=events_total,
            max_attempts=self._options.max_attempts,
            first_delay_seconds=self._options.first_delay_seconds,
            monotonic=self._options.monotonic,
            tracing=tracing or NoTracing(),
        )
        self._pull: Pull | None = None
        self._check_at = 0.0
        self._connection = 0
        self._fetching = asyncio.Lock()
        self._storing = asyncio.Lock()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Consume for ever. When cancelled, the batch in hand is finished and acknowledged."""
        await drained(self._consume(), self._stopping.set)

    async def _consume(self) -> None:
        # Two in turns: while one stores a batch, the other fetches and decodes the next.
        await asyncio.gather(self._take_turns(), self._take_turns())
        await self._close()

    async def _take_turns(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            healthy = await self._step()
            pause = 0.0 if healthy else min(max(2 * pause, 0.25), _MAX_PAUSE_SECONDS)
            if pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    async def _step(self) -> bool:
        """Fetch and handle one batch; returns whether to go on without a pause."""
        async with self._fetching:
            if self._stopping.is_set():
                return True
            try:
                events = await self._fetch()
            except (nats.errors.Error, OSError) as error:
                log.warning("the journal can't be read now", error=repr(error))
                await self._close()
                return False
        if self._stopping.is_set():
            await self._deliveries.give_back(events, delay=0.0)
            return True
        if not events:
            # Not behind the other, which may be storing for long.
            return True
        async with self._leases(events):
            try:
                decoded = await self._deliveries.decoded(events)
                async with self._storing:
                    await self._deliveries.store(decoded)
                return True
            except UnavailableError as error:
                waiting = [event for event in events if not event.is_settled]
                log.warning("events wait", reason=str(error), events=len(waiting))
                # However long it is away: once it is back, nothing should wait for its turn.
                delay = spread(_MAX_PAUSE_SECONDS / 2)
                await self._deliveries.give_back(waiting, delay=delay)
                return False

    async def _fetch(self) -> Sequence[Delivery]:
        now, connection = self._options.monotonic(), self._client.stats["reconnects"]
        if self._pull is None or now >= self._check_at or connection != self._connection:
            # Again every while: somebody may have deleted the consumer, or the whole stream. And
            # a broker that was away may have come back empty.
            js = self._client.jetstream()
            await ensure_ingest_consumer(
                js,
                durable=self._durable.name,
                subjects=self._durable.subjects,
                ack_wait_seconds=self._options.ack_wait_seconds,
                max_deliver=-1,
            )
            if self._pull is None:
                self._pull = Pull(self._client, stream=INGEST_STREAM, consumer=self._durable.name)
            self._check_at = now + _CHECK_SECONDS
            self._connection = connection
        # One alone: a request for several would wait for all of them.
        events = list(await self._pull.fetch(1, wait_seconds=self._options.fetch_seconds))
        try:
            await self._await_company(self._pull, events)
            more = self._options.batch_size - len(events)
            if more > 0 and _more_may_wait(events):
                events += await self._pull.fetch(more, max_bytes=_BATCH_BYTES)
        except (nats.errors.Error, OSError) as error:
            # The next request shows what is wrong.
            if not events:
                raise
            log.debug("a batch is smaller than it might be", error=repr(error))
        return events

    async def _await_company(self, pull: Pull, events: list[Delivery]) -> None:
        """While nobody waits for what was fetched, add what comes within a moment."""
        until = self._options.monotonic() + self._options.patience_seconds
        while (
            0 < len(events) < self._options.batch_size
            and events[-1].message.subject in self._durable.patient
            and not _more_may_wait(events)
            and (left := until - self._options.monotonic()) > 0
            and not self._stopping.is_set()
        ):
            events += await pull.fetch(1, wait_seconds=left)

    @contextlib.asynccontextmanager
    async def _leases(self, deliveries: Sequence[Delivery]) -> AsyncIterator[None]:
        """Extend the lease of what is still being worked on."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._options.ack_wait_seconds / 3)
                with broker_may_be_away():
                    for delivery in deliveries:
                        if not delivery.is_settled:
                            await delivery.in_progress()

        task = asyncio.create_task(extend())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _close(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await pull.close()
                # So that the acknowledgements are out before the process goes.
                await self._client.flush(timeout=2)


def _more_may_wait(events: Sequence[Delivery]) -> bool:
    """Whether there may be more to fetch at once than these, which were fetched last."""
    if not events:
        return False
    last = events[-1].message.metadata
    # What comes again isn't counted as pending, and rarely comes alone.
    return last.num_pending > 0 or last.num_delivered > 1
