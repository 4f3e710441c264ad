"""What a caller hears next: the one place that decides the course of a call."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Final

from services.common.errors import NotFoundError
from services.messaging.domain.call import (
    AnswerPart,
    Call,
    CallAction,
    CallSeen,
    Turn,
    TurnState,
)
from services.messaging.domain.keys import HANGUP, TRANSFER_KEY, is_key_press
from services.messaging.domain.language import Phrase
from services.messaging.domain.script import (
    AfterPart,
    AfterSilence,
    Dial,
    HangUp,
    Play,
    Record,
    Say,
    Script,
)
from services.messaging.ports.calls import CallSignal, CallStore, TurnStanding
from services.messaging.ports.clock import Clock
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.prompts import Prompts
from services.messaging.usecases.calls.requests import (
    Dialed,
    Incoming,
    Played,
    Recorded,
    Silent,
    StepRequest,
)
from services.messaging.usecases.calls.rules import CallRules

_REPROMPTS: Final = (Phrase.NOT_HEARD, Phrase.STILL_NOT_HEARD)


class NextStep:
    """Gives the script for whatever happened in a call.

    It only reads, save for a turn that said nothing and one nobody waits for any longer, so the
    same request may come twice.

    Args:
        poll_seconds: Looks at the store this often while it waits, for signals may be lost.
    """

    def __init__(
        self,
        store: CallStore,
        signal: CallSignal,
        prompts: Prompts,
        rules: CallRules,
        *,
        clock: Clock,
        metrics: CallMetrics,
        poll_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._signal = signal
        self._prompts = prompts
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._poll_seconds = poll_seconds

    async def __call__(self, request: StepRequest) -> Script:
        """What the caller hears and does next.

        Raises:
            UnavailableError: The database can't be reached.
        """
        event = request.event
        if isinstance(event, Incoming):
            return self._welcome(request.call)
        if isinstance(event, Recorded):
            if event.digits == HANGUP:
                return (HangUp(),)
            if event.voicemail:
                language = await self._language(request.call)
                return (self._prompts.step(Phrase.MESSAGE_TAKEN, language), HangUp())
            if is_key_press(event.digits):
                return await self._keys(request.call, event)
        if isinstance(event, Dialed):
            if event.answered:
                return (HangUp(),)
            language = await self._language(request.call)
            return self._message(Phrase.NOBODY_THERE, language, event.turn + 1)
        if isinstance(event, Silent):
            await self._store.silent(request.call, event.turn)
        return await self._follow(request.call.call_id, event, request.hold)

    def _welcome(self, call: CallSeen) -> Script:
        language = self._rules.language
        if not self._rules.is_closed(call):
            if not self._rules.answers:
                return self._message(Phrase.NOBODY_THERE, language, 1)
            greeting = self._prompts.step(Phrase.GREETING, language)
            return (greeting, *self._listen(1, self._rules.max_length, self._rules.silence_seconds))
        if self._rules.message_when_closed:
            return self._message(Phrase.CLOSED, language, 1)
        return (self._prompts.step(Phrase.CLOSED, language), HangUp())

    async def _keys(self, seen: CallSeen, event: Recorded) -> Script:
        call = await self._known(seen.call_id)
        language = self._rules.language if call is None else self._spoken(call)
        if event.digits.startswith(TRANSFER_KEY) and self._rules.transfer_to:
            return (
                self._prompts.step(Phrase.PUTTING_THROUGH, language),
                self._dial(self._rules.transfer_to, event.turn),
            )
        return self._go_on(call, event.turn, language, Phrase.PLEASE_SPEAK)

    async def _follow(
        self, call_id: str, event: Recorded | Silent | Played, hold: timedelta
    ) -> Script:
        """What follows a turn, waiting for it as long as the request allows."""
        part = event.part if isinstance(event, Played) else 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + hold.total_seconds()
        with self._signal.watching(call_id) as changed:
            while True:
                changed.clear()
                standing = await self._store.standing(call_id, event.turn)
                if _says_more(standing, part):
                    script = self._ready(await self._known(call_id), event.turn, part)
                    if script is not None:
                        return script
                left = deadline - loop.time()
                if left <= 0:
                    return await self._not_ready(call_id, await self._known(call_id), event, part)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, self._poll_seconds)):
                        await changed.wait()

    def _ready(self, call: Call | None, number: int, part: int) -> Script | None:
        """What can be said now; None when there is nothing yet."""
        turn = _turn(call, number)
        if call is None or turn is None:
            return None
        if call.status.has_ended or turn.state is TurnState.CANCELED:
            return (HangUp(),)
        if turn.state is TurnState.SILENT:
            return self._not_heard(call, turn)
        if turn.state is TurnState.FAILED and not turn.parts:
            self._metrics.voicemail()
            return self._message(Phrase.SORRY, self._spoken(call), number + 1)
        answer = tuple(_said(one, turn.language) for one in turn.parts[part:])
        if turn.state.is_final:
            return (*answer, *self._after_answer(call, turn))
        return (*answer, AfterPart(number, part + len(answer))) if answer else None

    def _after_answer(self, call: Call, turn: Turn) -> Script:
        language = self._spoken(call)
        if turn.action is CallAction.HANG_UP:
            farewell = () if turn.parts else (self._prompts.step(Phrase.GOODBYE, language),)
            return (*farewell, HangUp())
        if turn.action is CallAction.TRANSFER:
            if self._rules.transfer_to is None:
                return self._message(Phrase.NOBODY_THERE, language, turn.number + 1)
            words = () if turn.parts else (self._prompts.step(Phrase.PUTTING_THROUGH, language),)
            return (*words, self._dial(self._rules.transfer_to, turn.number))
        return self._go_on(call, turn.number, language)

    def _not_heard(self, call: Call, turn: Turn) -> Script:
        in_a_row = 0
        for one in sorted(call.turns, key=lambda one: -one.number):
            if one.number > turn.number:
                continue
            if one.state is not TurnState.SILENT:
                break
            in_a_row += 1
        language = self._spoken(call)
        if in_a_row > len(_REPROMPTS):
            return (self._prompts.step(Phrase.GOODBYE_UNHEARD, language), HangUp())
        return self._go_on(
            call, turn.number, language, _REPROMPTS[in_a_row - 1], silence=self._patience
        )

    async def _not_ready(
        self, call_id: str, call: Call | None, event: Recorded | Silent | Played, part: int
    ) -> Script:
        """A filler, or the end of the caller's patience."""
        turn = _turn(call, event.turn)
        language = self._rules.language if call is None else self._spoken(call)
        if turn is None:
            # What the caller said is in the journal, and doesn't reach us.
            too_long = isinstance(event, Played)
        else:
            too_long = self._clock() - turn.heard_at >= self._rules.longest_wait
        if not too_long:
            self._metrics.filler()
            first = isinstance(event, Recorded)
            phrase = Phrase.ONE_MOMENT if first else Phrase.ANOTHER_MOMENT
            return (self._prompts.step(phrase, language), AfterPart(event.turn, part))
        if turn is not None:
            problem = "the caller had waited too long"
            if await self._store.give_up_turn(call_id, event.turn, problem):
                self._metrics.turn(TurnState.FAILED, turn.timings)
            # It may have been finished at that very moment.
            script = self._ready(await self._known(call_id), event.turn, part)
            if script is not None:
                return script
        self._metrics.voicemail()
        return self._message(Phrase.SORRY, language, event.turn + 1)

    def _go_on(
        self,
        call: Call | None,
        turn: int,
        language: str,
        phrase: Phrase | None = None,
        *,
        silence: int | None = None,
    ) -> Script:
        """Listen to the caller once more, if there is time for it."""
        left = self._rules.max_length
        if call is not None:
            left -= self._clock() - call.started_at
        if turn >= self._rules.max_turns or left < timedelta(seconds=1):
            return (self._prompts.step(Phrase.OUT_OF_TIME, language), HangUp())
        words = () if phrase is None else (self._prompts.step(phrase, language),)
        return (*words, *self._listen(turn + 1, left, silence or self._rules.silence_seconds))

    def _listen(self, turn: int, left: timedelta, silence: int) -> Script:
        record = Record(
            turn,
            max_seconds=min(self._rules.max_speech_seconds, int(left.total_seconds())),
            silence_seconds=silence,
        )
        return (record, AfterSilence(turn))

    def _message(self, why: Phrase, language: str, turn: int) -> Script:
        """Ask for a message. A caller who leaves none is thanked all the same."""
        say = self._prompts.step
        record = Record(
            turn,
            max_seconds=self._rules.max_message_seconds,
            silence_seconds=self._patience,
            beep=True,
            voicemail=True,
        )
        return (
            say(why, language),
            say(Phrase.LEAVE_MESSAGE, language),
            record,
            say(Phrase.GOODBYE, language),
            HangUp(),
        )

    @property
    def _patience(self) -> int:
        return max(self._rules.patient_seconds, self._rules.silence_seconds)

    def _dial(self, number: str, turn: int) -> Dial:
        return Dial(number, self._rules.dial_timeout_seconds, turn)

    async def _language(self, seen: CallSeen) -> str:
        call = await self._known(seen.call_id)
        return self._rules.language if call is None else self._spoken(call)

    async def _known(self, call_id: str) -> Call | None:
        try:
            return await self._store.call(call_id)
        except NotFoundError:
            return None

    def _spoken(self, call: Call) -> str:
        return call.language or self._rules.language


def _says_more(standing: TurnStanding | None, part: int) -> bool:
    """Whether there may be something to say after so many parts."""
    return standing is not None and (
        standing.parts > part or standing.state.is_final or standing.status.has_ended
    )


def _turn(call: Call | None, number: int) -> Turn | None:
    turns = () if call is None else call.turns
    return next((turn for turn in turns if turn.number == number), None)


def _said(part: AnswerPart, language: str) -> Play | Say:
    if part.audio_id is None:
        return Say(part.text, language)
    return Play(part.audio_id, part.text, language)
