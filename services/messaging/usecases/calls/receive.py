"""Taking in what the journal says of calls."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from services.common.errors import NotFoundError
from services.messaging.domain.call import Call, CallOutcome, CallReport, CallSeen, Recording
from services.messaging.ports.calls import CallStore
from services.messaging.ports.clock import Clock
from services.messaging.usecases.calls.history import is_put_through, is_served, outcome_of
from services.messaging.usecases.calls.missed import MissedCallReply
from services.messaging.usecases.calls.rules import CallRules

log = structlog.get_logger(__name__)


class ReceiveCalls:
    """Stores events of calls and sees to what follows. Each may come twice, late or out of order.

    Every method raises `UnavailableError` when the database can't be reached: give the event
    again.

    Args:
        on_turn: Called with call and number of a turn that is to be worked on; must not block.
        missed: None when callers who missed us get no message.
        recent: Calls that are older get no message.
    """

    def __init__(
        self,
        store: CallStore,
        rules: CallRules,
        *,
        on_turn: Callable[[str, int], None],
        missed: MissedCallReply | None,
        clock: Clock,
        recent: timedelta = timedelta(hours=1),
    ) -> None:
        self._store = store
        self._rules = rules
        self._on_turn = on_turn
        self._missed = missed
        self._clock = clock
        self._recent = recent

    async def seen(self, call: CallSeen) -> None:
        """Somebody calls."""
        await self._store.seen(call)

    async def report(self, report: CallReport) -> None:
        """The provider says where a call stands."""
        if await self._store.report(report):
            await self._ended(report.call.call_id)

    async def recorded(self, recording: Recording) -> None:
        """The caller spoke, or left a message."""
        call_id = recording.call.call_id
        await self._store.recorded(recording)
        if not recording.absent:
            self._on_turn(call_id, recording.turn)
        if recording.voicemail:
            # It may come after the report that the call has ended.
            await self._ended(call_id)

    async def silent(self, call: CallSeen, turn: int) -> None:
        """The caller said nothing."""
        await self._store.silent(call, turn)

    async def played(self, call: CallSeen, turn: int, part: int) -> None:
        """The caller has heard the parts of an answer before `part`."""
        await self._store.seen(call)
        await self._store.played(call.call_id, turn, part)

    async def dialed(self, call: CallSeen, turn: int, *, answered: bool) -> None:
        """A person was called for the caller, after a turn."""
        await self._store.seen(call)
        await self._store.heard_out(call.call_id, before=turn + 1)
        outcome = CallOutcome.TRANSFERRED if answered else CallOutcome.MISSED
        await self._store.set_outcome(call.call_id, outcome)
        # The call's end may have been told before.
        await self._ended(call.call_id)

    async def settle(self, call_id: str) -> None:
        """Say what came of a call that has ended: nobody will tell of a person who was called."""
        await self._ended(call_id, all_told=True)

    async def _ended(self, call_id: str, *, all_told: bool = False) -> None:
        try:
            call = await self._store.call(call_id)
        except NotFoundError:
            return
        transferring = self._rules.transfer_to is not None and is_put_through(call)
        waits = transferring and call.outcome is None and not all_told
        if not call.status.has_ended or waits:
            return
        if not is_served(call):
            await self._write_to_caller(call)
        # Last: a call without an outcome is looked at again, should its caller's message fail.
        await self._store.conclude(call_id, partial(outcome_of, rules=self._rules))

    async def _write_to_caller(self, call: Call) -> None:
        if self._missed is None:
            return
        if self._clock() - call.started_at > self._recent + self._rules.max_length:
            log.info("a call is too long ago for a message to the caller", call_id=call.call_id)
            return
        await self._missed(call)
