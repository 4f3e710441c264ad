"""Reports that came before their message is known as theirs: applied then, or forgotten."""

import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, delete, select

from services.messaging.domain.message import Direction
from services.messaging.store.bulk import among
from services.messaging.store.database import Database
from services.messaging.store.deeds import parked_by_the_contact
from services.messaging.store.event_models import ParkedStatusRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.reports import apply_reports, parked_report

_AT_ONCE = 500


async def apply_parked(
    database: Database, provider_message_ids: Collection[str] | None = None
) -> int:
    """Apply parked reports whose message has become known; returns how many."""
    if provider_message_ids is not None:
        ids = {"ids": list(provider_message_ids)}
        return await _apply(database, _applicable_of(database.dialect), ids)
    # First: what they settle makes more messages known by the provider's id.
    return await _apply(database, _hinted(), {}) + await _apply(database, _applicable(), {})


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


async def _apply(
    database: Database,
    query: Select[*tuple[Any, ...]],
    parameters: Mapping[str, Sequence[str]],
) -> int:
    total = 0
    while True:
        async with database.read() as connection:
            # The common answer is "nothing", and it should not take SQLite's write lock.
            if (await connection.execute(query, {**parameters, "most": 1})).first() is None:
                return total
        async with database.write() as connection:
            locking = query.with_for_update(skip_locked=True, of=ParkedStatusRow)
            rows = (await connection.execute(locking, {**parameters, "most": _AT_ONCE})).all()
            result = await apply_reports(connection, map(parked_report, rows))
            left = {report.event_key for report in result.unmatched}
            applied = [row.id for row in rows if row.event_key not in left]
            await connection.execute(delete(ParkedStatusRow).where(ParkedStatusRow.id.in_(applied)))
        total += len(applied)
        if len(rows) < _AT_ONCE or not applied:
            return total


@functools.cache
def _applicable() -> Select[*tuple[Any, ...]]:
    return _parked_about(
        MessageRow.provider == ParkedStatusRow.provider,
        MessageRow.provider_message_id == ParkedStatusRow.provider_message_id,
        parked_by_the_contact(),
    )


@functools.cache
def _applicable_of(dialect: str) -> Select[*tuple[Any, ...]]:
    return _applicable().where(among(dialect, ParkedStatusRow.provider_message_id, "ids"))


@functools.cache
def _hinted() -> Select[*tuple[Any, ...]]:
    """Reports that name a message of ours which has no provider's id yet."""
    return _parked_about(
        MessageRow.public_id == ParkedStatusRow.message_id,
        MessageRow.provider == ParkedStatusRow.provider,
        MessageRow.direction == Direction.OUTBOUND.value,
        MessageRow.provider_message_id.is_(None),
    )


def _parked_about(*message: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(*ParkedStatusRow.__table__.columns)
        .join(MessageRow, and_(*message))
        .order_by(ParkedStatusRow.id)
        .limit(bindparam("most", type_=Integer))
    )
