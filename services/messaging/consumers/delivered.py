"""What becomes of delivered events: stored and acknowledged, offered again, or moved to `DEAD`."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from prometheus_client import Counter

from services.common.errors import UnavailableError
from services.common.tracing import TRACEPARENT, Tracing, Within, sent_traceparent
from services.messaging.consumers.dead_letters import DeadLetters
from services.messaging.consumers.decoding import PoisonError
from services.messaging.consumers.delivery import Delivery

log = structlog.get_logger(__name__)

_MAX_DELAY_SECONDS = 60.0
_DECODED_AT_ONCE = 128
"""Then others have their turn: calls are answered on the same processor."""

_BREAKDOWN_SECONDS = 60.0
"""So long after the database was away, that explains why events come again."""

_ALL = 1_000_000
_TOGETHER = {1: _ALL, 2: _ALL, 3: 64, 4: 8}
"""By deliveries."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """A delivered event that is understood."""

    delivery: Delivery
    content: T
    traceparent: str


class Deliveries(Generic[T]):
    """Handles delivered events.

    Args:
        decode: Headers and data into what `store` takes; raises `PoisonError`.
        store: Stores a batch, whole or not at all or so that it may come again. Raises
            `UnavailableError` to be asked again later, and ValueError for what can never be
            stored.
        events_total: Counts by the label `outcome`: stored, deferred or dead.
        max_attempts: Deliveries after which an event that fails alone goes to `DEAD`.
        first_delay_seconds: Of an event that failed, doubled each time.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        client: Client,
        *,
        decode: Callable[[Mapping[str, str] | None, bytes], T],
        store: Callable[[Sequence[T]], Awaitable[object]],
        events_total: Counter,
        max_attempts: int,
        first_delay_seconds: float,
        monotonic: Callable[[], float],
        tracing: Tracing,
    ) -> None:
        self._decode = decode
        self._handle = store
        self._events_total = events_total
        self._max_attempts = max_attempts
        self._first_delay_seconds = first_delay_seconds
        self._monotonic = monotonic
        self._away_at: float | None = None
        self._tracing = tracing
        self._dead_letters = DeadLetters(client)

    async def decoded(self, deliveries: Sequence[Delivery]) -> Sequence[Event[T]]:
        """What was delivered, but for what can't be understood: that goes to `DEAD`."""
        events: list[Event[T]] = []
        for number, delivery in enumerate(deliveries, start=1):
            headers = delivery.message.headers
            sent = headers.get(TRACEPARENT, "") if headers else ""
            # What has no context of its own gets one here, for all that follows from it.
            traceparent = sent_traceparent(sent)
            if headers and traceparent != sent:
                headers = {**headers, TRACEPARENT: traceparent}
            try:
                content = self._decode(headers, delivery.message.data)
            except PoisonError as error:
                with Within(traceparent):
                    await self._bury(delivery, str(error))
            else:
                events.append(Event(delivery, content, traceparent))
            if number % _DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return events

    async def store(self, events: Sequence[Event[T]]) -> None:
        """Have events stored, together as far as that is safe.

        Raises:
            UnavailableError: Events that aren't acknowledged have to be given back.
        """
        try:
            for at_most, alike in itertools.groupby(
                sorted(events, key=self._together_at_most, reverse=True), self._together_at_most
            ):
                some = list(alike)
                for start in range(0, len(some), at_most):
                    await self._store_halving(some[start : start + at_most])
        except UnavailableError:
            self._away_at = self._monotonic()
            raise

    async def give_back(
        self, deliveries: Sequence[Delivery], *, delay: float | None = None
    ) -> None:
        """Have events delivered again, each time after a longer delay."""
        self._events_total.labels("deferred").inc(len(deliveries))
        with broker_may_be_away():
            for delivery in deliveries:
                await delivery.nak(self._delay(delivery) if delay is None else delay)

    def _together_at_most(self, event: Event[T]) -> int:
        """With how many an event may be stored, itself included.

        What comes again may be what brought the process down, and is alone in the end. A process
        that has lived to see the database away knows better.
        """
        if self._away_at is not None and self._monotonic() - self._away_at < _BREAKDOWN_SECONDS:
            return _ALL
        return _TOGETHER.get(event.delivery.message.metadata.num_delivered, 1)

    async def _store_halving(self, events: Sequence[Event[T]]) -> None:
        if len(events) == 1:
            await self._store_alone(events[0])
            return
        try:
            await self._store(events)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - It is met again, and logged, alone.
            log.warning("a batch failed, its halves are tried", error=_kind(error))
            middle = len(events) // 2
            await self._store_halving(events[:middle])
            await self._store_halving(events[middle:])

    async def _store_alone(self, event: Event[T]) -> None:
        with Within(event.traceparent):
            try:
                await self._store([event])
            except UnavailableError:
                raise
            except ValueError as error:
                await self._bury(event.delivery, _kind(error))
            except Exception as error:
                log.exception("an event failed")
                if event.delivery.message.metadata.num_delivered >= self._max_attempts:
                    await self._bury(event.delivery, f"failed again and again: {_kind(error)}")
                else:
                    await self.give_back([event.delivery])

    async def _store(self, events: Sequence[Event[T]]) -> None:
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
        with broker_may_be_away():
            for event in events:
                await event.delivery.ack()

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        """Move an event to `DEAD`. One that can't go there now comes again and stops no other."""
        try:
            await self._dead_letters.bury(delivery, reason)
        except UnavailableError as error:
            log.warning("an event can't be moved to the dead stream", reason=str(error))
            await self.give_back([delivery])
        else:
            self._events_total.labels("dead").inc()

    def _delay(self, delivery: Delivery) -> float:
        doublings = min(delivery.message.metadata.num_delivered - 1, 10)
        return spread(min(self._first_delay_seconds * (1 << doublings), _MAX_DELAY_SECONDS))


@contextlib.contextmanager
def broker_may_be_away() -> Iterator[None]:
    """For what the broker is told: when it can't be, the events come again."""
    try:
        yield
    except (nats.errors.Error, OSError) as error:
        log.warning("the journal was not told; the events come again", error=repr(error))


def spread(seconds: float) -> float:
    """A time around this one, so that replicas don't all return at once."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - Spreading load needs no secrecy.


def _kind(error: Exception) -> str:
    """What may be shown of an error: other kinds of error may quote what a contact wrote."""
    return str(error) if type(error) is ValueError else type(error).__name__
