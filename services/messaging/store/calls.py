"""Calls and their turns, stored so that order and repetition of what is told don't matter."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.call import (
    AnswerPart,
    Call,
    CallAction,
    CallEvent,
    CallOutcome,
    CallReport,
    CallSeen,
    CallStatus,
    Recording,
    TurnState,
    TurnTimings,
)
from services.messaging.ports.calls import CallFilter, CallPage, ClaimedTurn
from services.messaging.ports.clock import Clock
from services.messaging.ports.reading import ListPosition
from services.messaging.store.bulk import insert_many
from services.messaging.store.call_folding import (
    Columns,
    fold_absent,
    fold_call,
    fold_recording,
    fold_report,
    fold_silence,
    outranks,
)
from services.messaging.store.call_models import (
    CallEventRow,
    CallRow,
    CallTurnPartRow,
    CallTurnRow,
)
from services.messaging.store.call_reading import list_calls, read_call
from services.messaging.store.database import Database
from services.messaging.store.rows import insert_ignoring

_WORKING = TurnState.WORKING.value


class SqlCallStore:
    """`CallStore` on SQLite and PostgreSQL.

    Args:
        on_change: Called with a call's id after each commit that changed what it or its turns
            show.
    """

    def __init__(
        self, database: Database, clock: Clock, *, on_change: Callable[[str], None] = lambda _: None
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change

    async def note(self, events: Sequence[CallEvent]) -> None:
        """Keep events as they came, and store their calls where unknown; known keys are left."""
        changed: set[str] = set()
        async with self._database.write() as connection:
            # Always in the same order: two transactions then can't wait for each other.
            calls = {(one.call.call_id, one.call.provider): 0 for one in events}
            for key in sorted(calls):
                for event in events:
                    if (event.call.call_id, event.call.provider) == key:
                        row, news = await _call(connection, event.call)
                        calls[key] = row
                        if news:
                            changed.add(event.call.call_id)
            await insert_many(
                connection,
                CallEventRow,
                [
                    {
                        "call_id": calls[one.call.call_id, one.call.provider],
                        "event_key": one.key,
                        "kind": one.kind,
                        "occurred_at": one.call.at,
                        "payload": dict(one.payload),
                    }
                    for one in sorted({one.key: one for one in events}.values(), key=_event_key)
                ],
            )
        for call_id in changed:
            self._on_change(call_id)

    async def seen(self, call: CallSeen) -> None:
        """Store a call unless it is known."""
        async with self._changing(call.call_id) as (connection, changed):
            _, news = await _call(connection, call)
            changed.append(news)

    async def report(self, report: CallReport) -> bool:
        """Apply a report, storing the call where it is unknown; True when it ended the call.

        The report that ended it says so also when it is delivered again.
        """
        async with self._changing(report.call.call_id) as (connection, changed):
            _, news = await _call(connection, report.call, report)
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

        The first recording of a turn holds; a later one with another id is left.
        """
        call = recording.call
        async with self._changing(call.call_id) as (connection, changed):
            call_id, news = await _call(connection, call, talking=True)
            fold = fold_absent if recording.absent else fold_recording
            changed += [
                news,
                await _fold_turn(
                    connection, call_id, recording.turn, lambda row: fold(row, recording)
                ),
            ]

    async def silent(self, call: CallSeen, turn: int) -> None:
        """Note a turn in which the caller said nothing, unless there is a recording of it."""
        async with self._changing(call.call_id) as (connection, changed):
            call_id, news = await _call(connection, call, talking=True)
            changed += [
                news,
                await _fold_turn(connection, call_id, turn, lambda row: fold_silence(row, call.at)),
            ]

    async def claim_turn(
        self, call_id: str, number: int, *, lease: timedelta
    ) -> ClaimedTurn | None:
        """Take a turn that is to be worked on; None when it is final or somebody else's.

        Parts that an earlier owner left are kept where they were played, and dropped otherwise.
        """
        now = self._clock()
        async with self._changing(call_id) as (connection, changed):
            claimed = await connection.execute(
                update(CallTurnRow)
                .where(
                    *_turn(call_id, number),
                    CallTurnRow.state == _WORKING,
                    CallTurnRow.recording_id.is_not(None),
                    or_(CallTurnRow.lease_until.is_(None), CallTurnRow.lease_until <= now),
                )
                .values(lease_until=now + lease, attempts=CallTurnRow.attempts + 1)
                .returning(*CallTurnRow.__table__.columns)
            )
            row = claimed.first()
            if row is None:
                return None
            if row.parts > row.played:
                await connection.execute(
                    delete(CallTurnPartRow).where(
                        CallTurnPartRow.turn_id == row.id, CallTurnPartRow.number >= row.played
                    )
                )
                await _set_turn(connection, row.id, {"parts": row.played})
                changed.append(True)
            provider = await connection.scalar(
                select(CallRow.provider).where(CallRow.id == row.call_id)
            )
        return ClaimedTurn(
            call_id=call_id,
            provider=str(provider),
            number=number,
            recording_id=row.recording_id,
            recording_url=row.recording_url,
            voicemail=row.voicemail,
            heard_at=row.heard_at,
            attempt=row.attempts,
            lease_until=row.lease_until,
        )

    async def transcribed(self, turn: ClaimedTurn, transcript: str, language: str) -> bool:
        """Note what was understood; False when the claim is lost or the turn final."""
        values = {"transcript": _storable(transcript), "language": language}
        async with self._changing(turn.call_id) as (connection, changed):
            await connection.execute(
                select(CallRow.id)
                .where(CallRow.provider_call_id == turn.call_id)
                .with_for_update(key_share=True)
            )
            row = await _update_claimed(connection, turn, values)
            if row is None:
                return False
            later = aliased(CallTurnRow)
            await connection.execute(
                update(CallRow)
                .where(
                    CallRow.id == row.call_id,
                    ~exists().where(
                        later.call_id == row.call_id,
                        later.number > turn.number,
                        later.language != "",
                    ),
                )
                .values(language=language)
            )
            changed.append(True)
        return True

    async def add_part(self, turn: ClaimedTurn, part: AnswerPart) -> bool:
        """Add the next sentence of the answer; False when the claim is lost or the turn final."""
        async with self._changing(turn.call_id) as (connection, changed):
            row = await _update_claimed(connection, turn, {"parts": CallTurnRow.parts + 1})
            if row is None:
                return False
            await connection.execute(
                insert_ignoring(connection, CallTurnPartRow).values(
                    turn_id=row.id,
                    number=row.parts - 1,
                    text=_storable(part.text),
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
    ) -> bool:
        """End a turn; False when the claim is lost or it was final before."""
        values: Columns = {
            "state": state.value,
            "action": action.value,
            "problem": None if problem is None else _storable(problem),
            "lease_until": None,
            **_timing_values(timings or TurnTimings()),
        }
        async with self._changing(turn.call_id) as (connection, changed):
            if await _update_claimed(connection, turn, values) is None:
                return False
            changed.append(True)
        return True

    async def release_turn(self, turn: ClaimedTurn, *, retry_at: datetime) -> None:
        """Give a claim back; the turn is unfinished from `retry_at` on, for another attempt."""
        async with self._database.write() as connection:
            await _update_claimed(connection, turn, {"lease_until": retry_at})

    async def give_up_turn(self, call_id: str, number: int, problem: str) -> bool:
        """Make a turn FAILED, whoever works on it; False when it is final already, or unknown."""
        async with self._changing(call_id) as (connection, changed):
            updated = await connection.execute(
                update(CallTurnRow)
                .where(*_turn(call_id, number), CallTurnRow.state == _WORKING)
                .values(state=TurnState.FAILED.value, problem=_storable(problem), lease_until=None)
                .returning(CallTurnRow.id)
            )
            given_up = updated.first() is not None
            changed.append(given_up)
        return given_up

    async def played(self, call_id: str, turn: int, parts: int) -> None:
        """Note that the caller has heard so many parts of an answer; never fewer than before.

        The turn may not be known yet; the call must be, else nothing is noted.
        """
        async with self._changing(call_id) as (connection, changed):
            found = await connection.scalar(
                select(CallRow.id)
                .where(CallRow.provider_call_id == call_id)
                .with_for_update(key_share=True)
            )
            if found is not None:
                changed.append(
                    await _fold_turn(
                        connection,
                        found,
                        turn,
                        lambda row: {"played": max(parts, row.played if row else 0)},
                    )
                )

    async def set_outcome(self, call_id: str, outcome: CallOutcome) -> None:
        """Note what came of a call, unless what is known of it outranks that."""
        async with self._changing(call_id) as (connection, changed):
            outranked = [one.value for one in CallOutcome if outranks(outcome, one)]
            updated = await connection.execute(
                update(CallRow)
                .where(
                    CallRow.provider_call_id == call_id,
                    or_(CallRow.outcome.is_(None), CallRow.outcome.in_(outranked)),
                )
                .values(outcome=outcome.value)
                .returning(CallRow.id)
            )
            changed.append(updated.first() is not None)

    async def recording_deleted(self, call_id: str, turn: int) -> None:
        """Forget the provider's recording of a turn."""
        async with self._database.write() as connection:
            await connection.execute(
                update(CallTurnRow).where(*_turn(call_id, turn)).values(has_recording=False)
            )

    async def call(self, call_id: str) -> Call:
        """One call with its turns.

        Raises:
            NotFoundError: There is none.
        """
        async with self._database.read() as connection:
            return await read_call(connection, call_id)

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
        query = (
            select(CallRow.provider_call_id, CallTurnRow.number, CallTurnRow.recording_id)
            .join(CallRow, CallRow.id == CallTurnRow.call_id)
            .where(
                CallTurnRow.has_recording.is_(True),
                CallTurnRow.state != _WORKING,
                or_(
                    CallTurnRow.voicemail.is_(False),
                    CallTurnRow.state != TurnState.FAILED.value,
                ),
            )
            .order_by(CallTurnRow.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [(row.provider_call_id, row.number, str(row.recording_id)) for row in rows]

    async def unfinished(self, *, limit: int) -> Sequence[tuple[str, int]]:
        """Turns to be worked on that nobody works on, by call and number, the oldest first."""
        query = (
            select(CallRow.provider_call_id, CallTurnRow.number)
            .join(CallRow, CallRow.id == CallTurnRow.call_id)
            .where(
                CallTurnRow.state == _WORKING,
                CallTurnRow.recording_id.is_not(None),
                or_(CallTurnRow.lease_until.is_(None), CallTurnRow.lease_until <= self._clock()),
            )
            .order_by(CallTurnRow.heard_at, CallTurnRow.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [(row.provider_call_id, row.number) for row in await connection.execute(query)]

    @contextlib.asynccontextmanager
    async def _changing(self, call_id: str) -> AsyncIterator[tuple[AsyncConnection, list[bool]]]:
        """A transaction; when it is committed and something has changed, that is announced."""
        changed: list[bool] = []
        async with self._database.write() as connection:
            yield connection, changed
        if any(changed):
            self._on_change(call_id)


async def _call(
    connection: AsyncConnection,
    call: CallSeen,
    report: CallReport | None = None,
    *,
    talking: bool = False,
) -> tuple[int, bool]:
    """The row of a call, locked, with what is told of it folded in, and whether that was news."""
    here = and_(CallRow.provider_call_id == call.call_id, CallRow.provider == call.provider)
    query = select(*CallRow.__table__.columns).where(here).with_for_update(key_share=True)
    row = (await connection.execute(query)).first()
    added = False
    if row is None:
        inserted = await connection.execute(
            insert_ignoring(connection, CallRow)
            .values(
                provider=call.provider,
                provider_call_id=call.call_id,
                status=CallStatus.QUEUED.value,
                caller=call.caller,
                called=call.called,
                started_at=call.at,
                language="",
            )
            .returning(CallRow.id)
        )
        added = inserted.first() is not None
        row = (await connection.execute(query)).one()
    changes = fold_call(row, call, talking=talking)
    if report is not None:
        changes |= fold_report(row, report)
    if changes:
        await connection.execute(update(CallRow).where(CallRow.id == row.id).values(changes))
    return row.id, added or bool(changes)


async def _fold_turn(
    connection: AsyncConnection,
    call_id: int,
    number: int,
    fold: Callable[[Row[*tuple[Any, ...]] | None], Columns],
) -> bool:
    """Fold something into a turn, which is added where it is unknown; whether that was news.

    The call must be locked.
    """
    row = (
        await connection.execute(
            select(*CallTurnRow.__table__.columns)
            .where(CallTurnRow.call_id == call_id, CallTurnRow.number == number)
            .with_for_update(key_share=True)
        )
    ).first()
    wanted = fold(row)
    if row is None:
        await connection.execute(
            insert_ignoring(connection, CallTurnRow).values(
                {
                    "call_id": call_id,
                    "number": number,
                    "state": _WORKING,
                    "voicemail": False,
                    "has_recording": False,
                    **wanted,
                }
            )
        )
        return True
    changes = {name: value for name, value in wanted.items() if getattr(row, name) != value}
    if changes:
        await _set_turn(connection, row.id, changes)
    return bool(changes)


async def _set_turn(connection: AsyncConnection, row_id: int, values: Columns) -> None:
    await connection.execute(update(CallTurnRow).where(CallTurnRow.id == row_id).values(values))


async def _update_claimed(
    connection: AsyncConnection, turn: ClaimedTurn, values: Columns
) -> Row[*tuple[Any, ...]] | None:
    """Set columns of a turn if the claim still holds; its row then."""
    updated = await connection.execute(
        update(CallTurnRow)
        .where(
            *_turn(turn.call_id, turn.number),
            CallTurnRow.state == _WORKING,
            CallTurnRow.attempts == turn.attempt,
            CallTurnRow.lease_until == turn.lease_until,
        )
        .values(values)
        .returning(CallTurnRow.id, CallTurnRow.call_id, CallTurnRow.parts)
    )
    return updated.first()


def _turn(call_id: str, number: int) -> tuple[Any, Any]:
    call = select(CallRow.id).where(CallRow.provider_call_id == call_id)
    return CallTurnRow.call_id.in_(call), CallTurnRow.number == number


def _timing_values(timings: TurnTimings) -> Columns:
    names = ("fetch", "transcribe", "first_sentence", "first_audio", "gap")
    spans: dict[str, timedelta | None] = {name: getattr(timings, name) for name in names}
    return {
        f"{name}_ms": None if span is None else round(span / timedelta(milliseconds=1))
        for name, span in spans.items()
    }


def _event_key(event: CallEvent) -> str:
    return event.key


def _storable(text: str) -> str:
    """Without what PostgreSQL can't store; vendors' answers may hold anything."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
