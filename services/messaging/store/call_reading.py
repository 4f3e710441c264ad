"""Reading calls; lists as in `queries`: each is an index read from its end."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, exists, or_, select, tuple_, union
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.messaging.domain.call import (
    AnswerPart,
    Call,
    CallAction,
    CallOutcome,
    CallStatus,
    Turn,
    TurnState,
    TurnTimings,
)
from services.messaging.domain.keys import TRANSFER_KEY
from services.messaging.ports.calls import CallFilter, CallPage, TurnStanding
from services.messaging.ports.reading import ListPosition
from services.messaging.store.call_models import CallRow, CallTurnPartRow, CallTurnRow

_NEWEST_FIRST = (CallRow.started_at.desc(), CallRow.id.desc())


async def read_call(connection: AsyncConnection, call_id: str) -> Call:
    """One call with its turns.

    Raises:
        NotFoundError: There is none.
    """
    found = await connection.execute(
        select(*CallRow.__table__.columns)
        .where(CallRow.provider_call_id == call_id)
        .order_by(CallRow.id)
        .limit(1)
    )
    row = found.first()
    if row is None:
        raise NotFoundError("there is no such call")
    turns = (
        await connection.execute(
            select(*CallTurnRow.__table__.columns)
            .where(CallTurnRow.call_id == row.id)
            .order_by(CallTurnRow.number)
        )
    ).all()
    parts = await connection.execute(
        select(*CallTurnPartRow.__table__.columns)
        .join(CallTurnRow, CallTurnRow.id == CallTurnPartRow.turn_id)
        .where(CallTurnRow.call_id == row.id)
        .order_by(CallTurnPartRow.number)
    )
    answers: dict[int, list[AnswerPart]] = {}
    for part in parts:
        answers.setdefault(part.turn_id, []).append(AnswerPart(part.text, part.audio_id))
    return _call_of(row, tuple(_turn_of(one, answers.get(one.id, ()), row) for one in turns))


async def read_standing(
    connection: AsyncConnection, call_id: str, number: int
) -> TurnStanding | None:
    """How far a turn is; None where it is unknown."""
    found = await connection.execute(
        select(CallRow.status, CallTurnRow.state, CallTurnRow.digits, CallTurnRow.parts)
        .join(CallTurnRow, CallTurnRow.call_id == CallRow.id)
        .where(CallRow.provider_call_id == call_id, CallTurnRow.number == number)
        .order_by(CallRow.id)
        .limit(1)
    )
    row = found.first()
    if row is None:
        return None
    return TurnStanding(CallStatus(row.status), TurnState(row.state), row.digits, row.parts)


async def list_calls(
    connection: AsyncConnection, question: CallFilter, *, limit: int, after: ListPosition | None
) -> CallPage:
    """A page of calls that follow a position, newest first."""
    query = _newest(question, after, limit + 1)
    rows = (await connection.execute(query)).all()
    page = rows[:limit]
    return CallPage(
        calls=tuple(_call_of(row) for row in page),
        next=(page[-1].started_at, page[-1].id) if len(rows) > limit else None,
    )


async def recordings_to_delete(
    connection: AsyncConnection, *, limit: int
) -> Sequence[tuple[str, int, str]]:
    """Final turns whose recording the provider still has, but for voicemails that failed."""
    rows = await connection.execute(
        select(CallRow.provider_call_id, CallTurnRow.number, CallTurnRow.recording_id)
        .join(CallRow, CallRow.id == CallTurnRow.call_id)
        .where(
            CallTurnRow.has_recording.is_(True),
            CallTurnRow.state != TurnState.WORKING.value,
            or_(
                CallTurnRow.voicemail.is_(False),
                CallTurnRow.state != TurnState.FAILED.value,
            ),
        )
        .order_by(CallTurnRow.id)
        .limit(limit)
    )
    return [(row.provider_call_id, row.number, str(row.recording_id)) for row in rows]


async def unreported_transfers(
    connection: AsyncConnection, *, since: datetime, ended_before: datetime, limit: int
) -> Sequence[str]:
    """Calls that have ended without a report on the person to speak to."""
    rows = await connection.scalars(
        select(CallRow.provider_call_id)
        .where(
            CallRow.outcome.is_(None),
            CallRow.started_at >= since,
            CallRow.ended_at <= ended_before,
            exists().where(
                CallTurnRow.call_id == CallRow.id,
                or_(
                    CallTurnRow.action == CallAction.TRANSFER.value,
                    CallTurnRow.digits.startswith(TRANSFER_KEY),
                ),
            ),
        )
        .order_by(CallRow.started_at, CallRow.id)
        .limit(limit)
    )
    return rows.all()


async def unfinished_turns(
    connection: AsyncConnection, *, now: datetime, limit: int
) -> Sequence[tuple[str, int]]:
    """Turns to be worked on that nobody works on, the oldest first."""
    rows = await connection.execute(
        select(CallRow.provider_call_id, CallTurnRow.number)
        .join(CallRow, CallRow.id == CallTurnRow.call_id)
        .where(
            CallTurnRow.state == TurnState.WORKING.value,
            CallTurnRow.recording_id.is_not(None),
            or_(CallTurnRow.lease_until.is_(None), CallTurnRow.lease_until <= now),
        )
        .order_by(CallTurnRow.heard_at, CallTurnRow.id)
        .limit(limit)
    )
    return [(row.provider_call_id, row.number) for row in rows]


def _newest(
    question: CallFilter, after: ListPosition | None, limit: int
) -> Select[*tuple[Any, ...]]:
    bounds = _bounds(question, after)
    query = select(*CallRow.__table__.columns)
    if question.number is None:
        return query.where(*bounds).order_by(*_NEWEST_FIRST).limit(limit)
    # Two places of two indexes; SQLite takes an ORDER BY only in a table that a union reads.
    ends = [
        select(CallRow.id)
        .where(end == question.number, *bounds)
        .order_by(*_NEWEST_FIRST)
        .limit(limit)
        .subquery()
        for end in (CallRow.caller, CallRow.called)
    ]
    either = union(*(select(end.c.id) for end in ends)).subquery()
    return query.join(either, either.c.id == CallRow.id).order_by(*_NEWEST_FIRST).limit(limit)


def _bounds(question: CallFilter, after: ListPosition | None) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if question.outcome is not None:
        bounds.append(CallRow.outcome == question.outcome.value)
    if question.since is not None:
        bounds.append(CallRow.started_at >= question.since)
    if question.until is not None:
        bounds.append(CallRow.started_at < question.until)
    if after is not None:
        bounds.append(tuple_(CallRow.started_at, CallRow.id) < after)
    return bounds


def _call_of(row: Row[*tuple[Any, ...]], turns: tuple[Turn, ...] = ()) -> Call:
    return Call(
        call_id=row.provider_call_id,
        provider=row.provider,
        status=CallStatus(row.status),
        outcome=None if row.outcome is None else CallOutcome(row.outcome),
        caller=row.caller,
        called=row.called,
        language=row.language,
        started_at=row.started_at,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
        duration=_span(row.duration_ms),
        turns=turns,
    )


def _turn_of(
    row: Row[*tuple[Any, ...]], parts: Sequence[AnswerPart], call: Row[*tuple[Any, ...]]
) -> Turn:
    return Turn(
        number=row.number,
        state=TurnState(row.state),
        voicemail=row.voicemail,
        transcript=row.transcript,
        parts=tuple(parts),
        played=row.played,
        action=CallAction(row.action),
        language=row.language,
        digits=row.digits,
        recording_id=row.recording_id if row.has_recording else None,
        recording_duration=_span(row.recording_duration_ms),
        heard_at=row.heard_at or call.started_at,
        timings=TurnTimings(
            fetch=_span(row.fetch_ms),
            transcribe=_span(row.transcribe_ms),
            first_sentence=_span(row.first_sentence_ms),
            first_audio=_span(row.first_audio_ms),
            gap=_span(row.gap_ms),
        ),
        problem=row.problem,
    )


def _span(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)
