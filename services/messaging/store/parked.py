"""Reports that came before their message: applied once it is known, or forgotten."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, delete, select

from services.messaging.domain.message import Direction
from services.messaging.store.database import Database
from services.messaging.store.event_models import ParkedStatusRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.reports import apply_reports, parked_report

_AT_ONCE = 500


async def apply_parked(
    database: Database, provider_message_ids: Collection[str] | None = None
) -> int:
    """Apply parked reports whose message has become known; returns how many."""
    total = 0
    if provider_message_ids is None:
        # First: what they settle makes more messages known by the provider's id.
        total = await _apply(database, _hinted())
    return total + await _apply(database, _applicable(provider_message_ids))


async def drop_parked(database: Database, before: datetime) -> int:
    """Forget parked reports from before a time; returns how many."""
    old = ParkedStatusRow.occurred_at < before
    async with database.read() as connection:
        if await connection.scalar(select(ParkedStatusRow.id).where(old).limit(1)) is None:
            return 0
    async with database.write() as connection:
        dropped = await connection.execute(
            delete(ParkedStatusRow).where(old).returning(ParkedStatusRow.id)
        )
        return len(dropped.all())


async def _apply(database: Database, query: Select[*tuple[Any, ...]]) -> int:
    total = 0
    while True:
        async with database.read() as connection:
            # The common answer is "nothing", and it should not take SQLite's write lock.
            if (await connection.execute(query.limit(1))).first() is None:
                return total
        async with database.write() as connection:
            rows = (
                await connection.execute(
                    query.with_for_update(skip_locked=True, of=ParkedStatusRow)
                )
            ).all()
            unmatched = await apply_reports(connection, map(parked_report, rows))
            left = {report.event_key for report in unmatched}
            applied = [row.id for row in rows if row.event_key not in left]
            await connection.execute(delete(ParkedStatusRow).where(ParkedStatusRow.id.in_(applied)))
        total += len(applied)
        if len(rows) < _AT_ONCE or not applied:
            return total


def _applicable(provider_message_ids: Collection[str] | None) -> Select[*tuple[Any, ...]]:
    query = (
        select(*ParkedStatusRow.__table__.columns)
        .join(
            MessageRow,
            and_(
                MessageRow.provider == ParkedStatusRow.provider,
                MessageRow.provider_message_id == ParkedStatusRow.provider_message_id,
            ),
        )
        .order_by(ParkedStatusRow.id)
        .limit(_AT_ONCE)
    )
    if provider_message_ids is not None:
        query = query.where(ParkedStatusRow.provider_message_id.in_(provider_message_ids))
    return query


def _hinted() -> Select[*tuple[Any, ...]]:
    """Reports that name a message of ours which has no provider's id yet."""
    return (
        select(*ParkedStatusRow.__table__.columns)
        .join(
            MessageRow,
            and_(
                MessageRow.public_id == ParkedStatusRow.message_id,
                MessageRow.provider == ParkedStatusRow.provider,
                MessageRow.direction == Direction.OUTBOUND.value,
                MessageRow.provider_message_id.is_(None),
            ),
        )
        .order_by(ParkedStatusRow.id)
        .limit(_AT_ONCE)
    )
