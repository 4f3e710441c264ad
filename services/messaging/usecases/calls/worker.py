"""Who works on turns: one owner for each, in any replica, and another when that one is gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from services.common.errors import UnavailableError
from services.common.tracing import NoTracing, Tracing, enter
from services.messaging.ports.calls import CallStore, ClaimedTurn
from services.messaging.ports.clock import Clock
from services.messaging.usecases.background import claimed, drained
from services.messaging.usecases.calls.history import outcome_of
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.rules import CallRules
from services.messaging.usecases.calls.stages import StageTimer
from services.messaging.usecases.calls.turn_work import End, LostError, TurnWork

log = structlog.get_logger(__name__)

_FIRST_RETRY: Final = timedelta(seconds=15)
_LONGEST_RETRY: Final = timedelta(hours=1)
_MAX_WAITING: Final = 10_000


class TurnWorker:
    """Claims turns, has them worked on, and stores what became of them.

    Args:
        lease: When this process dies, another may take its turns over after so long. Callers
            wait `CallRules.longest_wait` at most, so it must be well below that.
        drain: How long turns may go on when this process is stopped, before others get them.
        sweep_seconds: Looks this often for turns that nobody works on.
    """

    def __init__(
        self,
        store: CallStore,
        work: TurnWork,
        rules: CallRules,
        *,
        clock: Clock,
        metrics: CallMetrics,
        concurrency: int = 50,
        lease: timedelta = timedelta(seconds=15),
        drain: timedelta = timedelta(seconds=8),
        sweep_seconds: float = 2.0,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or NoTracing()
        self._store = store
        self._work = work
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease = lease
        self._drain = drain
        self._sweep_seconds = sweep_seconds
        # In the order in which they came.
        self._waiting: dict[tuple[str, int], None] = {}
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    def wake(self, call_id: str, number: int) -> None:
        """There is a turn to be worked on; nothing happens when somebody has it."""
        # Beyond that the sweep brings them.
        if len(self._waiting) < _MAX_WAITING:
            self._waiting[call_id, number] = None
        self._woken.set()

    async def run(self) -> None:
        """Work for ever. When cancelled, what is under way is finished or given back."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        try:
            while True:
                self._woken.clear()
                if loop.time() >= sweep_at:
                    await self._sweep()
                    sweep_at = loop.time() + self._sweep_seconds
                self._start()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0, sweep_at - loop.time())):
                        await self._woken.wait()
        finally:
            running = [*self._running.values()]
            try:
                if running:
                    await asyncio.wait(running, timeout=self._drain.total_seconds())
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _start(self) -> None:
        for turn in [*self._waiting]:
            if len(self._running) >= self._concurrency:
                return
            del self._waiting[turn]
            if turn not in self._running:
                task = asyncio.create_task(self._take(*turn))
                self._running[turn] = task
                task.add_done_callback(partial(self._done, turn))

    def _done(self, turn: tuple[str, int], _: asyncio.Task[None]) -> None:
        del self._running[turn]
        self._woken.set()

    async def _sweep(self) -> None:
        # Messages that wait for a vendor must not take the place of callers who wait.
        free = max(1, self._concurrency // 2) - len(self._running) - len(self._waiting)
        if free <= 0:
            return
        try:
            for call_id, number in await drained(self._store.unfinished(limit=free)):
                self.wake(call_id, number)
        except UnavailableError:
            log.warning("turns of calls wait for the database")

    async def _take(self, call_id: str, number: int) -> None:
        turn: ClaimedTurn | None = None
        try:
            claim = self._store.claim_turn(call_id, number, lease=self._lease)
            turn = await claimed(claim, partial(self._give_back, pause=timedelta()))
            if turn is None:
                return
            # This task is the turn's own, so the lines below about what went wrong bear it too.
            enter(turn.traceparent)
            with self._tracing.span("turn"):
                await self._work_on(turn)
        except asyncio.CancelledError:
            await self._give_back(turn, timedelta())
            raise
        except LostError:
            log.info("a turn is somebody else's, or over", call_id=call_id, turn=number)
        except UnavailableError:
            log.warning("a turn waits for the database", call_id=call_id, turn=number)
            await self._give_back(turn, timedelta())
        except Exception:
            log.exception("a turn failed; it is tried again", call_id=call_id, turn=number)
            await self._give_back(turn, _FIRST_RETRY)

    async def _work_on(self, turn: ClaimedTurn) -> None:
        async with self._held(turn):
            call = await drained(self._store.call(turn.call_id))
            timer = StageTimer(self._clock, turn.heard_at)
            end = await self._work.do(turn, call, timer)
            await drained(self._finish(turn, end, timer))

    @contextlib.asynccontextmanager
    async def _held(self, turn: ClaimedTurn) -> AsyncIterator[None]:
        """Renew a claim. One that is lost all the same is noticed at the next write."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 3)
                with contextlib.suppress(UnavailableError):
                    if not await drained(self._store.renew(turn, lease=self._lease)):
                        return

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _give_back(self, turn: ClaimedTurn | None, pause: timedelta) -> None:
        """Leave a turn to whoever is next; where that fails, its lease ends in time."""
        if turn is not None:
            with contextlib.suppress(UnavailableError):
                await drained(self._store.release_turn(turn, retry_at=self._clock() + pause))

    async def _finish(self, turn: ClaimedTurn, end: End | None, timer: StageTimer) -> None:
        if end is None:
            pause = min(_FIRST_RETRY * 2 ** min(turn.attempt - 1, 20), _LONGEST_RETRY)
            await self._store.release_turn(turn, retry_at=self._clock() + pause)
            return
        finished = await self._store.finish_turn(
            turn,
            end.state,
            action=end.action,
            timings=timer.timings,
            problem=end.problem,
            outcome_of=partial(outcome_of, rules=self._rules) if turn.voicemail else None,
        )
        if not finished:
            return
        self._metrics.turn(end.state, timer.timings)
        if end.problem is not None:
            log.info(
                "a turn has no answer, or half of one",
                call_id=turn.call_id,
                turn=turn.number,
                state=end.state.value,
                problem=end.problem,
            )
