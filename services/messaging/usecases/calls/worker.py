"""Working on turns: one owner for each, in any replica, until it is answered or nobody listens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from services.common.errors import UnavailableError
from services.common.tracing import NoTracing, Tracing, enter
from services.messaging.domain.call import Call, CallAction, CallStatus, Turn, TurnState
from services.messaging.domain.keys import HANGUP, is_key_press
from services.messaging.domain.language import PHRASES
from services.messaging.ports.calls import CallSignal, CallStore, ClaimedTurn
from services.messaging.ports.clock import Clock
from services.messaging.usecases.background import drained
from services.messaging.usecases.calls.history import exchanges
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.rules import CallRules
from services.messaging.usecases.calls.stages import StageTimer
from services.messaging.usecases.calls.turn import Answering
from services.messaging.usecases.calls.understanding import (
    Heard,
    NothingHeardError,
    NotUnderstoodError,
    RecordingLateError,
    Understanding,
)

log = structlog.get_logger(__name__)

_FIRST_RETRY: Final = timedelta(seconds=15)
_LONGEST_RETRY: Final = timedelta(hours=1)
_MAX_WAITING: Final = 10_000


@dataclass(frozen=True, slots=True)
class _End:
    """What became of a turn."""

    state: TurnState
    problem: str | None = None
    action: CallAction = CallAction.LISTEN


class _LostError(Exception):
    """The turn is final, or somebody else's."""


class TurnWorker:
    """Answers what callers say, and transcribes the messages they leave.

    Args:
        answering: None when there is no assistant.
        lease: When this process dies, another may take its turns over after so long. Callers
            wait `CallRules.longest_wait` at most, so it must be well below that.
        longest: How long one turn may take.
        drain: How long turns may go on when this process is stopped, before others get them.
        voicemail_tries: For so long after it was left a message is tried to be transcribed.
        sweep_seconds: Looks this often for turns that nobody works on.
        poll_seconds: Looks this often whether the caller has gone, for signals may be lost.
    """

    def __init__(
        self,
        store: CallStore,
        signal: CallSignal,
        understanding: Understanding,
        answering: Answering | None,
        rules: CallRules,
        *,
        clock: Clock,
        metrics: CallMetrics,
        concurrency: int = 50,
        lease: timedelta = timedelta(seconds=15),
        longest: timedelta = timedelta(seconds=90),
        drain: timedelta = timedelta(seconds=8),
        voicemail_tries: timedelta = timedelta(hours=24),
        sweep_seconds: float = 2.0,
        poll_seconds: float = 2.0,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or NoTracing()
        self._store = store
        self._signal = signal
        self._understanding = understanding
        self._answering = answering
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease = lease
        self._longest = longest
        self._drain = drain
        self._voicemail_tries = voicemail_tries
        self._sweep_seconds = sweep_seconds
        self._poll_seconds = poll_seconds
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
            turn = await drained(self._store.claim_turn(call_id, number, lease=self._lease))
            if turn is None:
                return
            # This task is the turn's own, so the lines below about what went wrong bear it too.
            enter(turn.traceparent)
            with self._tracing.span("turn"):
                await self._work_on(turn)
        except asyncio.CancelledError:
            await self._give_back(turn, timedelta())
            raise
        except _LostError:
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
            end = self._over(turn, call)
            if end is None:
                end = await self._worked(turn, call, timer)
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

    def _over(self, turn: ClaimedTurn, call: Call) -> _End | None:
        """What becomes of a turn on which there is no work to do; None for any other."""
        if turn.voicemail:
            return None
        said = _turn(call, turn.number)
        if (unheard := _unheard(call.status, said.digits)) is not None:
            return unheard
        if said.parts:
            # An earlier owner is gone, and the caller may be hearing these: another answer would
            # not go with them.
            return _End(TurnState.DONE, "the answer was broken off")
        if self._clock() - turn.heard_at >= self._rules.longest_wait:
            return _End(TurnState.FAILED, "it reached us too late to be answered")
        return None

    async def _worked(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> _End | None:
        """What became of a turn; None when it is to be tried again."""
        if turn.voicemail:
            return await self._message(turn, call, timer)
        task = asyncio.create_task(self._question(turn, call, timer))
        gone = asyncio.create_task(self._until_gone(turn))
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
        return gone.result() if task.cancelled() else task.result()

    async def _until_gone(self, turn: ClaimedTurn) -> _End:
        """Return once nobody waits for the turn any more, with what becomes of it then."""
        with self._signal.watching(turn.call_id) as changed:
            while True:
                changed.clear()
                with contextlib.suppress(UnavailableError):
                    said = await drained(self._store.standing(turn.call_id, turn.number))
                    if said is None:
                        return _End(TurnState.FAILED, "the call is gone")
                    if (unheard := _unheard(said.status, said.digits)) is not None:
                        return unheard
                    if said.state.is_final:
                        return _End(said.state)
                # Python 3.11's `wait_for` ignores a cancellation that comes with the change.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await changed.wait()

    async def _message(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> _End | None:
        """Transcribe a message."""
        try:
            async with asyncio.timeout(self._longest.total_seconds()):
                await self._note(turn, await self._heard(turn, call, timer))
            return _End(TurnState.DONE)
        except (NotUnderstoodError, RecordingLateError) as error:
            problem = str(error)
        except NothingHeardError as error:
            return _End(TurnState.SILENT, str(error))
        except TimeoutError:
            problem = "it took too long"
        except (_LostError, UnavailableError):
            raise
        except Exception:
            log.exception("transcribing a message failed", call_id=turn.call_id)
            problem = "it failed in an unforeseen way"
        if self._clock() - turn.heard_at < self._voicemail_tries:
            log.info("a message waits for its transcript", call_id=turn.call_id, problem=problem)
            return None
        log.error("a message was not transcribed", call_id=turn.call_id, problem=problem)
        return _End(TurnState.FAILED, problem)

    async def _question(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> _End:
        """Answer what the caller said."""
        try:
            async with asyncio.timeout(self._longest.total_seconds()):
                heard = await self._heard(turn, call, timer)
                return await self._answered(turn, call, heard, timer)
        except NothingHeardError as error:
            return _End(TurnState.SILENT, str(error))
        except NotUnderstoodError as error:
            return _End(TurnState.FAILED, str(error))
        except TimeoutError:
            return _End(TurnState.FAILED, "it took too long")
        except (_LostError, UnavailableError):
            raise
        except Exception:
            log.exception("answering a caller failed", call_id=turn.call_id)
            return _End(TurnState.FAILED, "it failed in an unforeseen way")

    async def _heard(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> Heard:
        said = _turn(call, turn.number)
        if said.transcript:
            # An earlier owner came that far.
            return Heard(said.transcript, said.language)
        return await self._understanding.hear(turn, languages=self._languages(call), timer=timer)

    async def _note(self, turn: ClaimedTurn, heard: Heard) -> None:
        if not await drained(self._store.transcribed(turn, heard.text, heard.language)):
            raise _LostError

    async def _answered(
        self, turn: ClaimedTurn, call: Call, heard: Heard, timer: StageTimer
    ) -> _End:
        if self._answering is None:
            await self._note(turn, heard)
            return _End(TurnState.FAILED, "there is no assistant")
        before = exchanges(call.turns, before=turn.number)
        is_first = True
        async with (
            self._answering.answer(before, heard.text, language=heard.language) as answer,
            contextlib.aclosing(answer.parts()) as parts,
        ):
            # Meanwhile the assistant begins.
            await self._note(turn, heard)
            async for part in parts:
                if not await drained(self._store.add_part(turn, part)):
                    raise _LostError
                if part.audio_id is None:
                    self._metrics.said()
                if is_first:
                    timer.spoken(answer.first_sentence_at)
                    is_first = False
        if is_first and answer.action is CallAction.LISTEN:
            return _End(TurnState.FAILED, answer.problem or "the assistant has nothing to say")
        return _End(TurnState.DONE, answer.problem, answer.action)

    async def _finish(self, turn: ClaimedTurn, end: _End | None, timer: StageTimer) -> None:
        if end is None:
            pause = min(_FIRST_RETRY * 2 ** min(turn.attempt - 1, 20), _LONGEST_RETRY)
            await self._store.release_turn(turn, retry_at=self._clock() + pause)
            return
        finished = await self._store.finish_turn(
            turn, end.state, action=end.action, timings=timer.timings, problem=end.problem
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

    def _languages(self, call: Call) -> Sequence[str]:
        spoken = (call.language, self._rules.language, *PHRASES)
        return tuple(dict.fromkeys(language for language in spoken if language))


def _unheard(status: CallStatus, digits: str) -> _End | None:
    """What becomes of a turn whose answer the caller wouldn't hear; None where they would.

    It may turn out while it is worked on: only the second webhook of a recording tells the keys.
    """
    if status.has_ended or digits == HANGUP:
        return _End(TurnState.CANCELED, "the caller has hung up")
    if is_key_press(digits):
        return _End(TurnState.SILENT, "keys were pressed")
    return None


def _turn(call: Call, number: int) -> Turn:
    return next(turn for turn in call.turns if turn.number == number)
