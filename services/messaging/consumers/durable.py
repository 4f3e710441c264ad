"""A consumer of the journal: fetches batches, has them stored, and acknowledges what is stored.

Any number of replicas share one durable consumer. Its `max_deliver` is unlimited, because the
server would stop delivering in silence: its advisory reaches only whoever listens at that moment.
Instead an event that goes on failing is moved to the stream `DEAD` here, where it is kept. Waiting
for the database doesn't count: that is no fault of the event, however long it takes.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Counter

from services.common.errors import UnavailableError
from services.common.journal.streams import INGEST_STREAM, ensure_ingest_consumer
from services.common.tracing import TRACEPARENT, NoTracing, Tracing, Within, sent_traceparent
from services.messaging.consumers.dead_letters import DeadLetters
from services.messaging.consumers.decoding import PoisonError
from services.messaging.consumers.pulling import Pull
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_MAX_DELAY_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 2.0
"""Between looks for a database or a broker that is away: customers wait for what has come in."""

_CHECK_SECONDS = 30.0
_TOGETHER_AT_MOST = 2
"""Deliveries after which an event is handled alone: it may be what brought the others down."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer of the journal.

    Attributes:
        subjects: What it gets; may hold wildcards.
    """

    name: str
    subjects: str


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer goes about it.

    Attributes:
        fetch_seconds: How long one request waits for events; also the longest a stop takes
            when there is nothing to do.
        ack_wait_seconds: Lease of a delivered event; extended while it is worked on. What a
            process had that was killed waits for so long.
        max_attempts: Deliveries after which an event that fails alone goes to `DEAD`.
    """

    batch_size: int = 256
    fetch_seconds: float = 1.0
    ack_wait_seconds: float = 5.0
    max_attempts: int = 10
    first_delay_seconds: float = 1.0
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Event(Generic[T]):
    delivery: Msg
    content: T
    traceparent: str


class JournalConsumer(Generic[T]):
    """Consumes what a durable consumer gets of the journal until cancelled.

    Args:
        client: May still be connecting.
        decode: Headers and data into what `store` takes; raises `PoisonError`.
        store: Stores a batch, whole or not at all or so that it may come again. Raises
            `UnavailableError` to be asked again later, and ValueError for what can never be
            stored.
        events_total: Counts by the label `outcome`: stored, deferred or dead.
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
        self._tracing = tracing or NoTracing()
        self._client = client
        self._durable = durable
        self._decode = decode
        self._handle = store
        self._events_total = events_total
        self._options = options or ConsumerOptions()
        self._dead_letters = DeadLetters(client)
        self._pull: Pull | None = None
        self._check_at = 0.0
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
            await self._give_back(events, delay=0.0)
            return True
        async with self._leases(events):
            try:
                decoded = await self._decoded(events)
                async with self._storing:
                    await self._store_all(decoded)
                return True
            except UnavailableError as error:
                waiting = [event for event in events if not event.is_acked]
                log.warning("events wait", reason=str(error), events=len(waiting))
                # However long it is away: once it is back, nothing should wait for its turn.
                await self._give_back(waiting, delay=_spread(_MAX_PAUSE_SECONDS / 2))
                return False

    async def _fetch(self) -> Sequence[Msg]:
        now = self._options.monotonic()
        if self._pull is None or now >= self._check_at:
            # Again every while: somebody may have deleted the consumer, or the whole stream.
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
        # One alone: a request for several would wait for all of them.
        events = await self._pull.fetch(1, wait_seconds=self._options.fetch_seconds)
        more = self._options.batch_size - len(events)
        if not events or more < 1 or not events[-1].metadata.num_pending:
            return events
        try:
            return [*events, *await self._pull.fetch(more)]
        except (nats.errors.Error, OSError):
            # The next request shows what is wrong.
            return events

    async def _decoded(self, deliveries: Sequence[Msg]) -> Sequence[_Event[T]]:
        events: list[_Event[T]] = []
        for delivery in deliveries:
            sent = delivery.headers or {}
            # What has no context of its own gets one here, for all that follows from it.
            traceparent = sent_traceparent(sent.get(TRACEPARENT, ""))
            headers = {**sent, TRACEPARENT: traceparent} if sent else None
            try:
                content = self._decode(headers, delivery.data)
            except PoisonError as error:
                with Within(traceparent):
                    await self._bury(delivery, str(error))
            else:
                events.append(_Event(delivery, content, traceparent))
        return events

    async def _store_all(self, events: Sequence[_Event[T]]) -> None:
        suspect = [e for e in events if e.delivery.metadata.num_delivered > _TOGETHER_AT_MOST]
        together = [e for e in events if e.delivery.metadata.num_delivered <= _TOGETHER_AT_MOST]
        if together:
            try:
                await self._store(together)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - It is met again, and logged, alone.
                log.warning("a batch failed, its events are tried one by one", error=_kind(error))
                suspect = [*together, *suspect]
        for event in suspect:
            await self._store_alone(event)

    async def _store_alone(self, event: _Event[T]) -> None:
        with Within(event.traceparent):
            try:
                await self._store([event])
            except UnavailableError:
                raise
            except ValueError as error:
                await self._bury(event.delivery, _kind(error))
            except Exception as error:
                log.exception("an event failed")
                if event.delivery.metadata.num_delivered >= self._options.max_attempts:
                    await self._bury(event.delivery, f"failed again and again: {_kind(error)}")
                else:
                    await self._give_back([event.delivery])

    async def _store(self, events: Sequence[_Event[T]]) -> None:
        """Have events stored, then acknowledge: what is lost in between comes again."""
        with contextlib.ExitStack() as spans:
            for event in events:
                spans.enter_context(
                    self._tracing.span("store", kind="consumer", parent=event.traceparent)
                )
            if len(events) > 1:
                # What is said of them all belongs to none of them.
                spans.enter_context(Within(""))
            await self._handle([event.content for event in events])
        self._events_total.labels("stored").inc(len(events))
        with self._broker_may_be_away():
            for event in events:
                await event.delivery.ack()

    async def _bury(self, delivery: Msg, reason: str) -> None:
        await self._dead_letters.bury(delivery, reason)
        self._events_total.labels("dead").inc()

    async def _give_back(self, deliveries: Sequence[Msg], *, delay: float | None = None) -> None:
        """Have events delivered again, each time after a longer delay."""
        self._events_total.labels("deferred").inc(len(deliveries))
        with self._broker_may_be_away():
            for delivery in deliveries:
                seconds = self._delay(delivery) if delay is None else delay
                await delivery.nak(seconds)

    def _delay(self, delivery: Msg) -> float:
        doublings = min(delivery.metadata.num_delivered - 1, 10)
        seconds = min(self._options.first_delay_seconds * (1 << doublings), _MAX_DELAY_SECONDS)
        return _spread(seconds)

    @contextlib.asynccontextmanager
    async def _leases(self, deliveries: Sequence[Msg]) -> AsyncIterator[None]:
        """Extend the lease of what is still being worked on."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._options.ack_wait_seconds / 3)
                with self._broker_may_be_away():
                    for delivery in deliveries:
                        if not delivery.is_acked:
                            await delivery.in_progress()

        task = asyncio.create_task(extend())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.contextmanager
    def _broker_may_be_away(self) -> Iterator[None]:
        try:
            yield
        except (nats.errors.Error, OSError) as error:
            log.warning("the journal was not told; the events come again", error=repr(error))

    async def _close(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await pull.close()
                # So that the acknowledgements are out before the process goes.
                await self._client.flush(timeout=2)


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - Spreading load needs no secrecy.


def _kind(error: Exception) -> str:
    """What may be shown of an error: other kinds of error may quote what a contact wrote."""
    return str(error) if type(error) is ValueError else type(error).__name__
