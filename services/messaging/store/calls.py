"""Calls and their turns, stored so that order and repetition of what is told don't matter."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.call import (
    AnswerPart,
    Call,
    CallAction,
    CallEvent,
    CallOutcome,
    CallReport,
    CallSeen,
    Recording,
    TurnState,
    TurnTimings,
)
from services.messaging.domain.text import storable
from services.messaging.ports.calls import CallFilter, CallPage, ClaimedTurn, TurnStanding
from services.messaging.ports.clock import Clock
from services.messaging.ports.reading import ListPosition
from services.messaging.store.call_folding import (
    Columns,
    fold_absent,
    fold_recording,
    fold_silence,
)
from services.messaging.store.call_models import CallRow, CallTurnPartRow, CallTurnRow
from services.messaging.store.call_outcomes import conclude, note_outcome
from services.messaging.store.call_reading import (
    list_calls,
    read_call,
    read_standing,
    recordings_to_delete,
    unfinished_turns,
    unreported_transfers,
)
from services.messaging.store.call_rows import (
    WORKING,
    add_events,
    claim_turn,
    fold_in,
    fold_turn,
    hear_out,
    lock_call,
    set_language,
    timing_values,
    turn_of,
    update_claimed,
)
from services.messaging.store.database import Database
from services.messaging.store.rows import insert_ignoring


class SqlCallStore:
    """`CallStore` on SQLite and PostgreSQL.

    Args:
        on_change: Called with a call's id after each commit that changed how far a turn of it is.
    """

    def __init__(
        self, database: Database, clock: Clock, *, on_change: Callable[[str], None] = lambda _: None
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change

    async def note(self, events: Sequence[CallEvent]) -> None:
        """Keep events as they came, and store their calls where unknown; known keys are left."""
        async with self._database.write() as connection:
            await add_events(connection, events)

    async def seen(self, call: CallSeen) -> None:
        """Store a call unless it is known."""
        async with self._database.write() as connection:
            await fold_in(connection, call)

    async def report(self, report: CallReport) -> bool:
        """Apply a report, storing the call where it is unknown; True when it ended the call.

        The report that ended it says so also when it is delivered again.
        """
        async with self._changing(report.call.call_id) as (connection, changed):
            _, news = await fold_in(connection, report.call, report)
            changed.append(news)
            ended_by = await connection.scalar(
                select(CallRow.ended_by).where(
                    CallRow.provider_call_id == report.call.call_id,
                    CallRow.provider == report.call.provider,
                )
            )
        return report.status.has_ended and ended_by == report.key

    async def recorded(self, recording: Recording) -> None:
        """Note what a caller said as a turn; more about a recording that is known is added.

        The first recording of a turn holds; a later one with another id is left. The turn before
        it counts as heard out.
        """
        call = recording.call
        async with self._changing(call.call_id) as (connection, changed):
            call_id, news = await fold_in(connection, call, talking=True)
            fold = fold_absent if recording.absent else fold_recording
            changed += [
                news,
                await fold_turn(
                    connection, call_id, recording.turn, lambda row: fold(row, recording)
                ),
            ]
            await hear_out(connection, call_id, before=recording.turn)

    async def silent(self, call: CallSeen, turn: int) -> None:
        """Note a turn in which the caller said nothing, unless there is a recording of it.

        The turn before it counts as heard out.
        """
        async with self._changing(call.call_id) as (connection, changed):
            call_id, news = await fold_in(connection, call, talking=True)
            changed += [
                news,
                await fold_turn(connection, call_id, turn, lambda row: fold_silence(row, call.at)),
            ]
            await hear_out(connection, call_id, before=turn)

    async def claim_turn(
        self, call_id: str, number: int, *, lease: timedelta
    ) -> ClaimedTurn | None:
        """Take a turn that is to be worked on; None when it is final or somebody else's.

        Parts that an earlier owner left are kept: the caller may be hearing them now.
        """
        async with self._database.write() as connection:
            return await claim_turn(connection, call_id, number, now=self._clock(), lease=lease)

    async def renew(self, turn: ClaimedTurn, *, lease: timedelta) -> bool:
        """Hold a claim for that long from now; False when it is lost or the turn final."""
        values: Columns = {"lease_until": self._clock() + lease}
        async with self._database.write() as connection:
            return await update_claimed(connection, turn, values) is not None

    async def transcribed(self, turn: ClaimedTurn, transcript: str, language: str) -> bool:
        """Note what was understood; False when the claim is lost or the turn final."""
        values = {"transcript": storable(transcript), "language": language}
        async with self._database.write() as connection:
            await lock_call(connection, turn.call_id)
            row = await update_claimed(connection, turn, values)
            if row is None:
                return False
            await set_language(connection, row.call_id, turn.number, language)
        return True

    async def add_part(self, turn: ClaimedTurn, part: AnswerPart) -> bool:
        """Add the next sentence of the answer; False when the claim is lost or the turn final."""
        async with self._changing(turn.call_id) as (connection, changed):
            row = await update_claimed(connection, turn, {"parts": CallTurnRow.parts + 1})
            if row is None:
                return False
            await connection.execute(
                insert_ignoring(connection, CallTurnPartRow).values(
                    turn_id=row.id,
                    number=row.parts - 1,
                    text=storable(part.text),
                    audio_id=part.audio_id,
                )
            )
            changed.append(True)
        return True

    async def finish_turn(
        self,
        turn: ClaimedTurn,
        state: TurnState,
        *,
        action: CallAction = CallAction.LISTEN,
        timings: TurnTimings | None = None,
        problem: str | None = None,
        outcome_of: Callable[[Call], CallOutcome | None] | None = None,
    ) -> bool:
        """End a turn; False when the claim is lost or it was final before."""
        values: Columns = {
            "state": state.value,
            "action": action.value,
            "problem": None if problem is None else storable(problem),
            "lease_until": None,
            **timing_values(timings or TurnTimings()),
        }
        async with self._changing(turn.call_id) as (connection, changed):
            if outcome_of is not None:
                # Before the turn, as everybody does.
                await lock_call(connection, turn.call_id)
            if await update_claimed(connection, turn, values) is None:
                return False
            if outcome_of is not None:
                await conclude(connection, turn.call_id, outcome_of, again=True)
            changed.append(True)
        return True

    async def release_turn(self, turn: ClaimedTurn, *, retry_at: datetime) -> None:
        """Give a claim back; the turn is unfinished from `retry_at` on, for another attempt."""
        async with self._database.write() as connection:
            await update_claimed(connection, turn, {"lease_until": retry_at})

    async def give_up_turn(self, call_id: str, number: int, problem: str) -> bool:
        """Make a turn FAILED, whoever works on it; False when it is final already, or unknown."""
        async with self._changing(call_id) as (connection, changed):
            updated = await connection.execute(
                update(CallTurnRow)
                .where(*turn_of(call_id, number), CallTurnRow.state == WORKING)
                .values(state=TurnState.FAILED.value, problem=storable(problem), lease_until=None)
                .returning(CallTurnRow.id)
            )
            given_up = updated.first() is not None
            changed.append(given_up)
        return given_up

    async def played(self, call_id: str, turn: int, parts: int) -> None:
        """Note that the caller has heard so many parts of an answer; never fewer than before.

        The turn may not be known yet; the call must be, else nothing is noted.
        """
        async with self._database.write() as connection:
            found = await lock_call(connection, call_id)
            if found is not None:
                await fold_turn(
                    connection,
                    found,
                    turn,
                    lambda row: {"played": max(parts, row.played if row else 0)},
                )

    async def heard_out(self, call_id: str, *, before: int) -> None:
        """Note that the answer of the last turn before a number was played to its end."""
        async with self._database.write() as connection:
            found = await lock_call(connection, call_id)
            if found is not None:
                await hear_out(connection, found, before=before)

    async def set_outcome(self, call_id: str, outcome: CallOutcome) -> None:
        """Note what came of a call, unless what is known of it outranks that."""
        async with self._database.write() as connection:
            await note_outcome(connection, call_id, outcome)

    async def conclude(
        self, call_id: str, outcome_of: Callable[[Call], CallOutcome | None]
    ) -> None:
        """Note what came of a call, which must be known, by its turns as they are now."""
        async with self._database.write() as connection:
            await conclude(connection, call_id, outcome_of)

    async def recording_deleted(self, call_id: str, turn: int) -> None:
        """Forget the provider's recording of a turn."""
        async with self._database.write() as connection:
            await connection.execute(
                update(CallTurnRow).where(*turn_of(call_id, turn)).values(has_recording=False)
            )

    async def call(self, call_id: str) -> Call:
        """One call with its turns.

        Raises:
            NotFoundError: There is none.
        """
        async with self._database.read() as connection:
            return await read_call(connection, call_id)

    async def standing(self, call_id: str, number: int) -> TurnStanding | None:
        """How far a turn is; None where it is unknown."""
        async with self._database.read() as connection:
            return await read_standing(connection, call_id, number)

    async def calls(
        self, question: CallFilter, *, limit: int, after: ListPosition | None
    ) -> CallPage:
        """A page of calls that follow a position, newest first."""
        async with self._database.read() as connection:
            return await list_calls(connection, question, limit=limit, after=after)

    async def recordings_to_delete(self, *, limit: int) -> Sequence[tuple[str, int, str]]:
        """Final turns whose recording the provider still has: call, turn and recording.

        Voicemails that failed are not among them: the recording is all there is of them.
        """
        async with self._database.read() as connection:
            return await recordings_to_delete(connection, limit=limit)

    async def unreported_transfers(
        self, *, since: datetime, ended_before: datetime, limit: int
    ) -> Sequence[str]:
        """Calls that have ended without a report on the person to speak to."""
        async with self._database.read() as connection:
            return await unreported_transfers(
                connection, since=since, ended_before=ended_before, limit=limit
            )

    async def unfinished(self, *, limit: int) -> Sequence[tuple[str, int]]:
        """Turns to be worked on that nobody works on, by call and number, the oldest first."""
        async with self._database.read() as connection:
            return await unfinished_turns(connection, now=self._clock(), limit=limit)

    @contextlib.asynccontextmanager
    async def _changing(self, call_id: str) -> AsyncIterator[tuple[AsyncConnection, list[bool]]]:
        """A transaction; when it is committed and something has changed, that is announced."""
        changed: list[bool] = []
        async with self._database.write() as connection:
            yield connection, changed
        if any(changed):
            self._on_change(call_id)
