"""Finding what a process that is gone, or a lost race, has left behind in the outbox."""

from datetime import datetime
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.store.database import Database
from services.messaging.store.outcomes import record_outcome
from services.messaging.store.unsettled import (
    DUE,
    SENDING,
    UNKNOWN,
    WAITING,
    claimed_send,
    oldest_of_its_conversation,
    select_unsettled,
)
from services.messaging.store.work_models import OutboxRow

_LEASE_EXPIRED: Final = SendOutcome(
    OutcomeKind.UNKNOWN,
    error_code="lease_expired",
    error_message="the process that was sending it is gone",
)


async def make_stranded_due(database: Database) -> int:
    """Make due what waits behind nothing any more; returns how many.

    It reads first: nearly always there is none, and a transaction that writes makes others wait.
    """
    stranded = select(OutboxRow.message_id).where(
        OutboxRow.state == WAITING,
        OutboxRow.message_id == oldest_of_its_conversation(),
    )
    async with database.read() as connection:
        ids = list(await connection.scalars(stranded))
    if not ids:
        return 0
    async with database.write() as connection:
        await connection.execute(
            update(OutboxRow)
            .where(OutboxRow.message_id.in_(ids), OutboxRow.state == WAITING)
            .values(state=DUE)
        )
    return len(ids)


async def make_expired_unknown(connection: AsyncConnection, now: datetime) -> int:
    """Make UNKNOWN what was being sent by a process that is gone; returns how many."""
    rows = (
        await connection.execute(
            select_unsettled().where(OutboxRow.state == SENDING, OutboxRow.lease_until <= now)
        )
    ).all()
    if not rows:
        return 0
    await connection.execute(
        update(OutboxRow)
        .where(OutboxRow.message_id.in_([row.message_id for row in rows]))
        .values(state=UNKNOWN, pinned=True, due_at=now, lease_until=None)
    )
    for row in rows:
        message = claimed_send(
            row,
            attempt=row.attempts,
            first_attempt_at=row.first_attempt_at,
            last_attempt_at=row.last_attempt_at,
            lease_until=now,
        )
        await record_outcome(connection, row.message_id, message, _LEASE_EXPIRED, now)
    return len(rows)
