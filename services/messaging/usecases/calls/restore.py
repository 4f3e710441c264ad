"""Storing calls of the past once more, where nothing may follow from them any longer."""

from datetime import timedelta

from services.common.errors import NotFoundError
from services.messaging.domain.call import Call, CallOutcome, CallReport, CallSeen, Recording
from services.messaging.ports.calls import CallStore
from services.messaging.ports.clock import Clock
from services.messaging.usecases.calls.history import is_message


class RestoreCalls:
    """Stores events of calls as `ReceiveCalls` does, and neither answers nor writes to anybody.

    What was answered isn't in the journal. So an outcome is noted only where none is known and the
    events alone tell it, or where they tell of a message, and no vendor is asked about a turn once
    more.

    Args:
        recent: Turns of calls that are younger are left to whoever answers calls.
    """

    def __init__(
        self, store: CallStore, *, clock: Clock, recent: timedelta = timedelta(hours=1)
    ) -> None:
        self._store = store
        self._clock = clock
        self._recent = recent

    async def seen(self, call: CallSeen) -> None:
        """Somebody called."""
        await self._store.seen(call)

    async def report(self, report: CallReport) -> None:
        """The provider said where a call stood."""
        await self._store.report(report)
        await self._ended(report.call.call_id)

    async def recorded(self, recording: Recording) -> None:
        """The caller spoke, or left a message."""
        call_id = recording.call.call_id
        is_old = self._clock() - recording.heard_at > self._recent
        is_new = is_old and not await self._is_known(call_id, recording.turn)
        await self._store.recorded(recording)
        if is_new:
            await self._store.give_up_turn(
                call_id, recording.turn, "restored from the journal, which has no answers"
            )
        await self._ended(call_id)

    async def silent(self, call: CallSeen, turn: int) -> None:
        """The caller said nothing."""
        await self._store.silent(call, turn)

    async def played(self, call: CallSeen, turn: int, part: int) -> None:
        """The caller heard the parts of an answer before `part`."""
        await self._store.seen(call)
        await self._store.played(call.call_id, turn, part)

    async def dialed(self, call: CallSeen, turn: int, *, answered: bool) -> None:
        """A person was called for the caller."""
        await self._store.seen(call)
        if answered:
            await self._store.set_outcome(call.call_id, CallOutcome.TRANSFERRED)

    async def _is_known(self, call_id: str, number: int) -> bool:
        try:
            call = await self._store.call(call_id)
        except NotFoundError:
            return False
        return any(turn.number == number for turn in call.turns)

    async def _ended(self, call_id: str) -> None:
        if (await self._store.call(call_id)).status.has_ended:
            await self._store.conclude(call_id, _told)


def _told(call: Call) -> CallOutcome | None:
    if any(map(is_message, call.turns)):
        return CallOutcome.VOICEMAIL
    if call.outcome not in (None, CallOutcome.VOICEMAIL):
        return call.outcome
    return CallOutcome.ANSWERED if any(turn.played for turn in call.turns) else None
