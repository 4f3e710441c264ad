"""Rows of calls and turns, within the caller's transaction: folding into them, and claims."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.call import (
    CallEvent,
    CallReport,
    CallSeen,
    CallStatus,
    TurnState,
    TurnTimings,
)
from services.messaging.ports.calls import ClaimedTurn
from services.messaging.store.bulk import insert_many
from services.messaging.store.call_folding import Columns, fold_call, fold_report
from services.messaging.store.call_models import (
    CallEventRow,
    CallRow,
    CallTurnRow,
)
from services.messaging.store.rows import insert_ignoring

WORKING = TurnState.WORKING.value


async def add_events(connection: AsyncConnection, events: Sequence[CallEvent]) -> None:
    """Keep events whose keys are unknown, and their calls."""
    call_ids: dict[tuple[str, str], int] = {}
    # Always in the same order: two transactions then can't wait for each other.
    for event in sorted(events, key=lambda one: (one.call.call_id, one.call.provider, one.key)):
        call = event.call
        call_ids[call.call_id, call.provider], _ = await fold_in(connection, call)
    distinct = {event.key: event for event in events}
    await insert_many(
        connection,
        CallEventRow,
        [
            {
                "call_id": call_ids[event.call.call_id, event.call.provider],
                "event_key": key,
                "kind": event.kind,
                "occurred_at": event.call.at,
                "payload": dict(event.payload),
            }
            for key, event in sorted(distinct.items())
        ],
    )


async def lock_call(connection: AsyncConnection, call_id: str) -> int | None:
    """The row of a call by the provider's id, locked; None when it is unknown."""
    return await connection.scalar(
        select(CallRow.id)
        .where(CallRow.provider_call_id == call_id)
        .order_by(CallRow.id)
        .limit(1)
        .with_for_update(key_share=True)
    )


async def set_language(connection: AsyncConnection, row_id: int, turn: int, language: str) -> None:
    """Note the language of a turn as the call's, unless a later one has its own."""
    later = aliased(CallTurnRow)
    await connection.execute(
        update(CallRow)
        .where(
            CallRow.id == row_id,
            ~exists().where(later.call_id == row_id, later.number > turn, later.language != ""),
        )
        .values(language=language)
    )


async def claim_turn(
    connection: AsyncConnection, call_id: str, number: int, *, now: datetime, lease: timedelta
) -> ClaimedTurn | None:
    """Claim a turn if it is free."""
    claimed = await connection.execute(
        update(CallTurnRow)
        .where(
            *turn_of(call_id, number),
            CallTurnRow.state == WORKING,
            CallTurnRow.recording_id.is_not(None),
            or_(CallTurnRow.lease_until.is_(None), CallTurnRow.lease_until <= now),
        )
        .values(lease_until=now + lease, attempts=CallTurnRow.attempts + 1)
        .returning(*CallTurnRow.__table__.columns)
    )
    row = claimed.first()
    if row is None:
        return None
    provider = await connection.scalar(select(CallRow.provider).where(CallRow.id == row.call_id))
    return ClaimedTurn(
        call_id=call_id,
        provider=str(provider),
        number=number,
        recording_id=row.recording_id,
        recording_url=row.recording_url,
        voicemail=row.voicemail,
        heard_at=row.heard_at,
        attempt=row.attempts,
        traceparent=row.traceparent or "",
    )


async def fold_in(
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
                # At least, when a webhook tells of it.
                status=CallStatus.RINGING.value,
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


async def fold_turn(
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
                    "state": WORKING,
                    "voicemail": False,
                    "has_recording": False,
                    **wanted,
                }
            )
        )
        return True
    changes = {name: value for name, value in wanted.items() if getattr(row, name) != value}
    if changes:
        await _set(connection, row.id, changes)
    return bool(changes)


async def hear_out(connection: AsyncConnection, call_id: int, *, before: int) -> None:
    """Note that the answer of the last turn before a number was played, if it was finished.

    The call must be locked.
    """
    last = (
        select(CallTurnRow.id)
        .where(CallTurnRow.call_id == call_id, CallTurnRow.number < before)
        .order_by(CallTurnRow.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    await connection.execute(
        update(CallTurnRow)
        .where(
            CallTurnRow.id == last,
            CallTurnRow.state == TurnState.DONE.value,
            CallTurnRow.played < CallTurnRow.parts,
        )
        .values(played=CallTurnRow.parts)
    )


async def _set(connection: AsyncConnection, row_id: int, values: Columns) -> None:
    await connection.execute(update(CallTurnRow).where(CallTurnRow.id == row_id).values(values))


async def update_claimed(
    connection: AsyncConnection, turn: ClaimedTurn, values: Columns
) -> Row[*tuple[Any, ...]] | None:
    """Set columns of a turn if the claim still holds; its row then."""
    updated = await connection.execute(
        update(CallTurnRow)
        .where(
            *turn_of(turn.call_id, turn.number),
            CallTurnRow.state == WORKING,
            CallTurnRow.attempts == turn.attempt,
        )
        .values(values)
        .returning(CallTurnRow.id, CallTurnRow.call_id, CallTurnRow.parts)
    )
    return updated.first()


def turn_of(call_id: str, number: int) -> tuple[Any, Any]:
    """The conditions that are true of one turn."""
    call = select(CallRow.id).where(CallRow.provider_call_id == call_id)
    return CallTurnRow.call_id.in_(call), CallTurnRow.number == number


def timing_values(timings: TurnTimings) -> Columns:
    """The columns for how long the stages of a turn took."""
    names = ("fetch", "transcribe", "first_sentence", "first_audio", "gap")
    spans: dict[str, timedelta | None] = {name: getattr(timings, name) for name in names}
    return {
        f"{name}_ms": None if span is None else round(span / timedelta(milliseconds=1))
        for name, span in spans.items()
    }
