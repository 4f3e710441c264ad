"""What a batch of the journal says of calls, into the store and to whoever acts upon it."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import UnavailableError
from services.common.tracing import Within
from services.messaging.domain.call import CallEvent, CallReport, CallSeen, Recording
from services.messaging.ports.calls import CallStore
from services.messaging.usecases.calls.requests import Dialed, Incoming, Played, Silent


class CallReceiver(Protocol):
    """Acts upon what is told of calls: `receive.ReceiveCalls`, `restore.RestoreCalls`."""

    async def seen(self, call: CallSeen) -> None: ...
    async def report(self, report: CallReport) -> None: ...
    async def recorded(self, recording: Recording) -> None: ...
    async def silent(self, call: CallSeen, turn: int) -> None: ...
    async def played(self, call: CallSeen, turn: int, part: int) -> None: ...
    async def dialed(self, call: CallSeen, turn: int, *, answered: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class VoiceEvent:
    """An event of a call.

    Attributes:
        kept: The event as it came.
        content: What it says.
        traceparent: The request that brought it.
    """

    kept: CallEvent
    content: Incoming | CallReport | Recording | Silent | Played | Dialed
    traceparent: str = ""


class TakeInCalls:
    """Takes events in. Each may come twice, late or out of order.

    Args:
        calls_at_once: Each needs a connection to the database, and others need some, too.
    """

    def __init__(self, store: CallStore, receive: CallReceiver, *, calls_at_once: int = 4) -> None:
        self._store = store
        self._receive = receive
        self._free = asyncio.Semaphore(calls_at_once)

    async def __call__(self, events: Sequence[VoiceEvent]) -> None:
        """Take a batch in: those of a call one after the other, and calls side by side.

        Callers wait for what follows from an event, and nobody for its being kept, so that comes
        last.

        Raises:
            UnavailableError: The database can't be reached: give the whole batch again.
            ValueError: A value can't be stored.
        """
        calls = itertools.groupby(sorted(events, key=_call_id), key=_call_id)
        ended = await asyncio.gather(
            *(self._one_call(list(of_call)) for _, of_call in calls), return_exceptions=True
        )
        errors = [error for error in ended if error is not None]
        for error in errors:
            if isinstance(error, UnavailableError):
                raise error
        if errors:
            raise errors[0]
        await self._store.note([event.kept for event in events])

    async def _one_call(self, events: Sequence[VoiceEvent]) -> None:
        async with self._free:
            for event in events:
                with Within(event.traceparent):
                    await self._one(event)

    async def _one(self, event: VoiceEvent) -> None:
        call = event.kept.call
        match event.content:
            case Incoming():
                await self._receive.seen(call)
            case CallReport() as report:
                await self._receive.report(report)
            case Recording() as recording:
                await self._receive.recorded(recording)
            case Silent(turn):
                await self._receive.silent(call, turn)
            case Played(turn, part):
                await self._receive.played(call, turn, part)
            case Dialed(turn, answered):
                await self._receive.dialed(call, turn, answered=answered)


def _call_id(event: VoiceEvent) -> str:
    return event.kept.call.call_id
