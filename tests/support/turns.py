"""A telephone line without a telephone: the use cases of calls on a real store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from services.messaging.domain.call import CallStatus, Turn
from services.messaging.domain.script import Script
from services.messaging.store.calls import SqlCallStore
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.missed import MissedCallReply
from services.messaging.usecases.calls.next_step import NextStep
from services.messaging.usecases.calls.prompts import Prompts
from services.messaging.usecases.calls.receive import ReceiveCalls
from services.messaging.usecases.calls.requests import (
    Dialed,
    Incoming,
    Played,
    Recorded,
    Silent,
    StepRequest,
)
from services.messaging.usecases.calls.rules import CallRules
from services.messaging.usecases.calls.turn import Answering
from services.messaging.usecases.calls.turn_work import TurnWork
from services.messaging.usecases.calls.understanding import Understanding
from services.messaging.usecases.calls.worker import TurnWorker
from tests.support.calls import START, recording, report, seen
from tests.support.scripted import (
    ScriptedRecordings,
    ScriptedTalker,
    ScriptedTranscriber,
    ScriptedVoice,
)
from tests.support.sending import ManualClock, open_database, running, until


class RealClock(ManualClock):
    """The time as it is."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


class LocalSignal:
    """`CallSignal` within one process."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watching(self, call_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the call, until the block is left."""
        event = asyncio.Event()
        self._waiting.setdefault(call_id, []).append(event)
        try:
            yield event
        finally:
            self._waiting[call_id].remove(event)

    def announce(self, call_id: str) -> None:
        """Say that a call has changed."""
        for event in self._waiting.get(call_id, ()):
            event.set()


@dataclass
class Line:
    """One process that answers calls, and the stand-ins behind it."""

    store: SqlCallStore
    signal: LocalSignal
    clock: ManualClock
    registry: CollectorRegistry
    recordings: ScriptedRecordings
    transcriber: ScriptedTranscriber
    talker: ScriptedTalker
    voice: ScriptedVoice
    rules: CallRules
    worker: TurnWorker
    receive: ReceiveCalls
    next_step: NextStep

    async def ask(
        self,
        event: Incoming | Recorded | Silent | Played | Dialed,
        *,
        call_id: str = "CA1",
        hold: float = 60,
    ) -> Script:
        """What the caller hears next."""
        call = replace(seen(call_id), at=self.clock())
        return await self.next_step(StepRequest(call, event, timedelta(seconds=hold)))

    async def says(self, turn: int = 1, **values: Any) -> None:
        """The caller speaks in a turn."""
        seconds = (self.clock() - START).total_seconds()
        await self.receive.recorded(recording(turn, **{"seconds": seconds, **values}))

    async def hangs_up(self, call_id: str = "CA1") -> None:
        """The call ends."""
        seconds = (self.clock() - START).total_seconds()
        ended = report(CallStatus.COMPLETED, call_id, seconds=seconds)
        await self.receive.report(ended)

    async def turn(self, number: int = 1, call_id: str = "CA1") -> Turn:
        """A turn as it is stored."""
        call = await self.store.call(call_id)
        return next(turn for turn in call.turns if turn.number == number)

    async def over(self, number: int = 1, call_id: str = "CA1") -> Turn:
        """A turn once it is final."""

        async def final() -> bool:
            return (await self.turn(number, call_id)).state.is_final

        await until(final)
        return await self.turn(number, call_id)

    @property
    def asked(self) -> tuple[int, int, int]:
        """How often each was asked: recordings, transcriber, assistant."""
        return len(self.recordings.fetched), len(self.transcriber.asked), len(self.talker.asked)

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def open_line(
    database_url: str,
    *,
    work: bool = True,
    missed: MissedCallReply | None = None,
    clock: ManualClock | None = None,
    lease: float | None = None,
    drain: float = 0,
    concurrency: int = 50,
    has_assistant: bool = True,
    like: Line | None = None,
    **rules: Any,
) -> AsyncIterator[Line]:
    """A process that answers calls.

    Args:
        work: Whether its worker runs.
        like: Another process, whose stand-ins and clock it shares.
        rules: Of `CallRules`.
    """
    if clock is None:
        clock = ManualClock(START)
    clock = like.clock if like else clock
    signal = like.signal if like else LocalSignal()
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    recordings = like.recordings if like else ScriptedRecordings()
    transcriber = like.transcriber if like else ScriptedTranscriber()
    talker = like.talker if like else ScriptedTalker()
    speaker = like.voice if like else ScriptedVoice()
    call_rules = CallRules(**{"language": "en-US", **rules})
    async with open_database(database_url) as database:
        store = SqlCallStore(database, clock, on_change=signal.announce)
        worker = TurnWorker(
            store,
            TurnWork(
                store,
                signal,
                Understanding({"twilio": recordings}, transcriber),
                Answering(talker, speaker.speak, clock=clock) if has_assistant else None,
                call_rules,
                clock=clock,
                metrics=metrics,
                poll_seconds=0.2,
            ),
            call_rules,
            clock=clock,
            metrics=metrics,
            concurrency=concurrency,
            drain=timedelta(seconds=drain),
            lease=timedelta(seconds=15 if lease is None else lease),
            sweep_seconds=0.05,
        )
        prompts = Prompts(
            speaker.speak, language="en-US", own_texts={}, retention=timedelta(days=30)
        )
        line = Line(
            store=store,
            signal=signal,
            clock=clock,
            registry=registry,
            recordings=recordings,
            transcriber=transcriber,
            talker=talker,
            voice=speaker,
            rules=call_rules,
            worker=worker,
            receive=ReceiveCalls(
                store, call_rules, on_turn=worker.wake, missed=missed, clock=clock
            ),
            next_step=NextStep(
                store, signal, prompts, call_rules, clock=clock, metrics=metrics, poll_seconds=0.2
            ),
        )
        async with running(*([worker.run()] if work else [])):
            yield line
