"""What there is to do about one turn: hear it, answer it, and stop when nobody listens."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from services.common.errors import UnavailableError
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
    RecordingUnusableError,
    Understanding,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """What became of a turn."""

    state: TurnState
    problem: str | None = None
    action: CallAction = CallAction.LISTEN


class LostError(Exception):
    """The turn is final, or somebody else's."""


class TurnWork:
    """Answers what a caller said, or transcribes a message, for whoever owns the turn.

    Args:
        answering: None when there is no assistant.
        longest: How long one turn may take.
        voicemail_tries: For so long after it was left a message is tried to be transcribed.
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
        longest: timedelta = timedelta(seconds=90),
        voicemail_tries: timedelta = timedelta(hours=24),
        poll_seconds: float = 2.0,
    ) -> None:
        self._store = store
        self._signal = signal
        self._understanding = understanding
        self._answering = answering
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._longest = longest
        self._voicemail_tries = voicemail_tries
        self._poll_seconds = poll_seconds

    async def do(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> End | None:
        """Work on a turn. Returns what became of it; None when it is to be tried again.

        Raises:
            LostError: The turn is final, or somebody else's.
            UnavailableError: The database doesn't answer.
        """
        if (end := self._over(turn, call)) is not None:
            return end
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

    def _over(self, turn: ClaimedTurn, call: Call) -> End | None:
        """What becomes of a turn on which there is no work to do; None for any other."""
        if turn.voicemail:
            return None
        said = _turn(call, turn.number)
        if (unheard := _unheard(call.status, said.digits)) is not None:
            return unheard
        if said.parts:
            # An earlier owner is gone, and the caller may be hearing these: another answer would
            # not go with them.
            return End(TurnState.DONE, "the answer was broken off")
        if self._clock() - turn.heard_at >= self._rules.longest_wait:
            return End(TurnState.FAILED, "it reached us too late to be answered")
        return None

    async def _until_gone(self, turn: ClaimedTurn) -> End:
        """Return once nobody waits for the turn any more, with what becomes of it then."""
        with self._signal.watching(turn.call_id) as changed:
            while True:
                changed.clear()
                with contextlib.suppress(UnavailableError):
                    said = await drained(self._store.standing(turn.call_id, turn.number))
                    if said is None:
                        return End(TurnState.FAILED, "the call is gone")
                    if (unheard := _unheard(said.status, said.digits)) is not None:
                        return unheard
                    if said.state.is_final:
                        return End(said.state)
                # Python 3.11's `wait_for` ignores a cancellation that comes with the change.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await changed.wait()

    async def _message(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> End | None:
        """Transcribe a message."""
        refused = False
        try:
            async with asyncio.timeout(self._longest.total_seconds()):
                await self._note(turn, await self._heard(turn, call, timer))
            return End(TurnState.DONE)
        except (NotUnderstoodError, RecordingLateError) as error:
            problem = str(error)
        except RecordingUnusableError as error:
            problem, refused = str(error), True
        except NothingHeardError as error:
            return End(TurnState.SILENT, str(error))
        except TimeoutError:
            problem = "it took too long"
        except (LostError, UnavailableError):
            raise
        except Exception:
            log.exception("transcribing a message failed", call_id=turn.call_id)
            problem = "it failed in an unforeseen way"
        if self._clock() - turn.heard_at < self._voicemail_tries:
            # A refusal may be a wrong setting's, and there is a day to mend it in.
            say = log.error if refused and turn.attempt == 1 else log.info
            say("a message waits for its transcript", call_id=turn.call_id, problem=problem)
            return None
        log.error("a message was not transcribed", call_id=turn.call_id, problem=problem)
        return End(TurnState.FAILED, problem)

    async def _question(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> End:
        """Answer what the caller said."""
        try:
            async with asyncio.timeout(self._longest.total_seconds()):
                heard = await self._heard(turn, call, timer)
                return await self._answered(turn, call, heard, timer)
        except NothingHeardError as error:
            return End(TurnState.SILENT, str(error))
        except NotUnderstoodError as error:
            return End(TurnState.FAILED, str(error))
        except TimeoutError:
            return End(TurnState.FAILED, "it took too long")
        except (LostError, UnavailableError):
            raise
        except Exception:
            log.exception("answering a caller failed", call_id=turn.call_id)
            return End(TurnState.FAILED, "it failed in an unforeseen way")

    async def _heard(self, turn: ClaimedTurn, call: Call, timer: StageTimer) -> Heard:
        said = _turn(call, turn.number)
        if said.transcript:
            # An earlier owner came that far.
            return Heard(said.transcript, said.language)
        return await self._understanding.hear(turn, languages=self._languages(call), timer=timer)

    async def _note(self, turn: ClaimedTurn, heard: Heard) -> None:
        if not await drained(self._store.transcribed(turn, heard.text, heard.language)):
            raise LostError

    async def _answered(
        self, turn: ClaimedTurn, call: Call, heard: Heard, timer: StageTimer
    ) -> End:
        if self._answering is None:
            await self._note(turn, heard)
            return End(TurnState.FAILED, "there is no assistant")
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
                    raise LostError
                if part.audio_id is None:
                    self._metrics.said()
                if is_first:
                    timer.spoken(answer.first_sentence_at)
                    is_first = False
        if is_first and answer.action is CallAction.LISTEN:
            return End(TurnState.FAILED, answer.problem or "the assistant has nothing to say")
        return End(TurnState.DONE, answer.problem, answer.action)

    def _languages(self, call: Call) -> Sequence[str]:
        spoken = (call.language, self._rules.language, *PHRASES)
        return tuple(dict.fromkeys(language for language in spoken if language))


def _unheard(status: CallStatus, digits: str) -> End | None:
    """What becomes of a turn whose answer the caller wouldn't hear; None where they would.

    It may turn out while it is worked on: only the second webhook of a recording tells the keys.
    """
    if status.has_ended or digits == HANGUP:
        return End(TurnState.CANCELED, "the caller has hung up")
    if is_key_press(digits):
        return End(TurnState.SILENT, "keys were pressed")
    return None


def _turn(call: Call, number: int) -> Turn:
    return next(turn for turn in call.turns if turn.number == number)
