"""The events of all messages as one sequence, for readers who must miss none.

Row ids are handed out before the commit, so a reader who only followed them would miss a row that
becomes visible after one with a higher id. On PostgreSQL the order is therefore by the number of
the writing transaction, and only rows of transactions older than any still running are handed out:
nothing can be added before them any more. SQLite has one writer, and all its rows carry 0.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text, Tuple, cast, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import Identity
from services.messaging.ports.reading import Change, ChangePage, Position
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.paging import EVENT_LENGTH, MESSAGE_LENGTH, fitting
from services.messaging.store.rows import event_of, message_of, select_events, select_messages

_LAST_ROW = 2**63 - 1
_OLDEST_FIRST = (MessageEventRow.transaction_id, MessageEventRow.id)


class SqlChangeReader:
    """`ChangeReader` on SQLite and PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def adopt(self) -> int:
        """Take in events that another database has numbered, after a restore; returns how many.

        Their numbers lie ahead of this database's own, and would be reached one day.
        """
        foreign = MessageEventRow.transaction_id >= _number(
            func.pg_snapshot_xmax(func.pg_current_snapshot())
        )
        async with self._database.read() as connection:
            if connection.dialect.name != "postgresql":
                return 0
            if await connection.scalar(select(MessageEventRow.id).where(foreign).limit(1)) is None:
                return 0
        async with self._database.write() as connection:
            adopted = await connection.execute(
                update(MessageEventRow).where(foreign).values(transaction_id=0)
            )
            return adopted.rowcount

    async def end(self) -> Position:
        """The place after which everything is that isn't visible yet."""
        async with self._database.read() as connection:
            return await _end(connection)

    async def newest(self) -> Position | None:
        """The place of the newest event that `after` hands out; None when there is none."""
        query = (
            select(MessageEventRow.transaction_id, MessageEventRow.id)
            .order_by(MessageEventRow.transaction_id.desc(), MessageEventRow.id.desc())
            .limit(1)
        )
        async with self._database.read() as connection:
            if connection.dialect.name == "postgresql":
                query = query.where(MessageEventRow.transaction_id < _oldest_running())
            row = (await connection.execute(query)).first()
        return None if row is None else (row.transaction_id, row.id)

    async def after(
        self, position: Position, *, limit: int, contact: Identity | None
    ) -> ChangePage:
        """What happened after a position, oldest first; looks at no more than `limit` events."""
        query = (
            select(
                MessageEventRow.transaction_id,
                MessageEventRow.id,
                ConversationRow.contact_id,
                (EVENT_LENGTH + MESSAGE_LENGTH).label("length"),
            )
            .join(MessageRow, MessageRow.id == MessageEventRow.message_id)
            .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
            .where(_place() > position)
            .order_by(*_OLDEST_FIRST)
            .limit(limit)
        )
        async with self._database.read(snapshot=True) as connection:
            if connection.dialect.name == "postgresql":
                query = query.where(MessageEventRow.transaction_id < _oldest_running())
            rows = (await connection.execute(query)).all()
            if not rows:
                if position > await _end(connection):
                    raise InvalidInputError(
                        "cursor", "is not of this database: begin again without one"
                    )
                return ChangePage((), position, is_last=True)
            wanted = rows
            if contact is not None:
                contact_id = await connection.scalar(
                    select(IdentityRow.contact_id).where(
                        IdentityRow.kind == contact.kind.value, IdentityRow.value == contact.value
                    )
                )
                wanted = [row for row in rows if row.contact_id == contact_id]
            page = fitting(wanted)
            changes = await _changes(connection, [row.id for row in page])
        is_whole = len(page) == len(wanted)
        last = rows[-1] if is_whole else page[-1]
        return ChangePage(
            changes=changes,
            position=(last.transaction_id, last.id),
            is_last=is_whole and len(rows) < limit,
        )


async def _changes(connection: AsyncConnection, row_ids: Collection[int]) -> tuple[Change, ...]:
    events = (
        await connection.execute(
            select_events()
            .where(one_of(connection, MessageEventRow.id, row_ids))
            .order_by(*_OLDEST_FIRST)
        )
    ).all()
    messages = await connection.execute(
        select_messages().where(
            one_of(connection, MessageRow.id, {event.message_row_id for event in events})
        )
    )
    found = {row.id: message_of(row) for row in messages}
    return tuple(Change(event_of(event), found[event.message_row_id]) for event in events)


async def _end(connection: AsyncConnection) -> Position:
    if connection.dialect.name == "postgresql":
        oldest_running = await connection.scalar(select(_oldest_running()))
        return (oldest_running or 0) - 1, _LAST_ROW
    return 0, await connection.scalar(select(func.max(MessageEventRow.id))) or 0


def _place() -> Tuple:
    return tuple_(MessageEventRow.transaction_id, MessageEventRow.id)


def _oldest_running() -> ColumnElement[int]:
    """The number of the oldest transaction that hasn't ended; all below it have."""
    return _number(func.pg_snapshot_xmin(func.pg_current_snapshot()))


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(cast(transaction, Text), BigInteger)
