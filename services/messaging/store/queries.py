"""Reading stored messages.

Every list is an index read from its end, so that a page takes as long among a million messages as
among a thousand. Where a filter stands for several places of an index, as a contact with several
conversations does, each is read for one page's length and the newest of them all are kept. Where a
page's texts are long it ends sooner, as `paging` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import Direction, Message, MessageEvent, MessageStatus
from services.messaging.ports.reading import ListPosition, MessageFilter, MessagePage, QueueSizes
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow, ParkedStatusRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.paging import EVENT_LENGTH, MESSAGE_LENGTH, fitting
from services.messaging.store.pausing import conversation_key
from services.messaging.store.rows import event_of, message_of, select_events, select_messages
from services.messaging.store.unsettled import SENDING, UNKNOWN
from services.messaging.store.work_models import OutboxRow, PendingReplyRow

# What a message's status says about its direction: so `status` serves both filters.
_STATUSES: Mapping[Direction, Sequence[MessageStatus]] = {
    Direction.INBOUND: [MessageStatus.RECEIVED],
    Direction.OUTBOUND: [one for one in MessageStatus if one is not MessageStatus.RECEIVED],
}
_NEWEST_FIRST = (MessageRow.created_at.desc(), MessageRow.id.desc())
_MOST_EVENTS = 200


class SqlMessageReader:
    """`MessageReader` on SQLite and PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def message(self, message_id: str) -> Message | None:
        """One message by our id."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select_messages().where(MessageRow.public_id == message_id)
            )
            row = found.first()
        return None if row is None else message_of(row)

    async def history(self, message_id: str) -> Sequence[MessageEvent]:
        """The newest of what happened to a message, as much as a page holds, oldest first."""
        newest = (
            select(MessageEventRow.id, EVENT_LENGTH.label("length"))
            .join(MessageRow, MessageRow.id == MessageEventRow.message_id)
            .where(MessageRow.public_id == message_id)
            .order_by(MessageEventRow.id.desc())
            .limit(_MOST_EVENTS)
        )
        async with self._database.read() as connection:
            page = fitting((await connection.execute(newest)).all())
            rows = await connection.execute(
                select_events()
                .where(one_of(connection, MessageEventRow.id, [row.id for row in page]))
                .order_by(MessageEventRow.id)
            )
            return [event_of(row) for row in rows]

    async def messages(
        self, wanted: MessageFilter, *, limit: int, after: ListPosition | None
    ) -> MessagePage:
        """A page of messages, from newest to oldest, that follow a position."""
        async with self._database.read(snapshot=True) as connection:
            query = newest_messages(
                await _ranges(connection, wanted), _bounds(wanted, after), limit=limit + 1
            )
            rows = [] if query is None else (await connection.execute(query)).all()
            page = fitting(rows[:limit])
            messages = await connection.execute(
                select_messages()
                .where(one_of(connection, MessageRow.id, [row.id for row in page]))
                .order_by(*_NEWEST_FIRST)
            )
        return MessagePage(
            messages=tuple(message_of(row) for row in messages),
            following=(page[-1].created_at, page[-1].id) if len(rows) > len(page) else None,
        )

    async def queue_sizes(self) -> QueueSizes:
        """How much waits at this moment."""
        async with self._database.read() as connection:
            # An attempt that failed puts off `due_at`.
            due_at = func.coalesce(OutboxRow.first_attempt_at, OutboxRow.due_at)
            found = await connection.execute(
                select(
                    OutboxRow.state, func.count().label("n"), func.min(due_at).label("due_at")
                ).group_by(OutboxRow.state)
            )
            states = found.all()
            counts = {row.state: row.n for row in states}
            replies = await connection.scalar(select(func.count()).select_from(PendingReplyRow))
            parked = await connection.scalar(select(func.count()).select_from(ParkedStatusRow))
            oldest = await connection.scalar(
                select(MessageRow.created_at)
                .join(OutboxRow, OutboxRow.message_id == MessageRow.id)
                .order_by(OutboxRow.message_id)
                .limit(1)
            )
        return QueueSizes(
            due=sum(counts.values()) - counts.get(SENDING, 0) - counts.get(UNKNOWN, 0),
            sending=counts.get(SENDING, 0),
            unknown=counts.get(UNKNOWN, 0),
            replies=replies or 0,
            parked=parked or 0,
            oldest_unsettled_at=oldest,
            first_due_at=min((row.due_at for row in states), default=None),
        )


def newest_messages(
    ranges: Sequence[ColumnElement[bool] | None],
    bounds: Sequence[ColumnElement[bool]],
    *,
    limit: int,
) -> Select[*tuple[Any, ...]] | None:
    """The newest messages within any of the ranges, each of which is one range of an index.

    Of each its `id`, `created_at` and `length`. None stands for the range of all messages; with no
    range at all there is nothing to ask.
    """
    if not ranges:
        return None
    # SQLite takes no ORDER BY in a part of a union, only in a table that the part reads.
    parts = [
        select(MessageRow.id, MessageRow.created_at, MESSAGE_LENGTH.label("length"))
        .where(*([] if one is None else [one]), *bounds)
        .order_by(*_NEWEST_FIRST)
        .limit(limit)
        for one in ranges
    ]
    if len(parts) == 1:
        return parts[0]
    union = union_all(*(select(part.subquery()) for part in parts)).subquery()
    return select(union).order_by(union.c.created_at.desc(), union.c.id.desc()).limit(limit)


async def _ranges(
    connection: AsyncConnection, wanted: MessageFilter
) -> list[ColumnElement[bool] | None]:
    statuses = None if wanted.direction is None else _STATUSES[wanted.direction]
    if wanted.status is not None:
        contradicts = statuses is not None and wanted.status not in statuses
        statuses = [] if contradicts else [wanted.status]
    conversations = await _conversations(connection, wanted)
    if conversations is None:
        if statuses is None:
            return [None]
        return [MessageRow.status == one.value for one in statuses]
    if statuses is None:
        return [MessageRow.conversation_id == one for one in conversations]
    values = [one.value for one in statuses]
    return [
        (MessageRow.conversation_id == one) & MessageRow.status.in_(values) for one in conversations
    ]


async def _conversations(connection: AsyncConnection, wanted: MessageFilter) -> list[int] | None:
    """The conversations that a filter leaves; None when it leaves all."""
    left: list[int] | None = None
    if wanted.contact is not None:
        left = list(await connection.scalars(conversations_with(wanted.contact)))
    if wanted.conversation_id is not None:
        key = await conversation_key(connection, wanted.conversation_id)
        left = [key] if left is None or key in left else []
    return left


def conversations_with(contact: Identity) -> Select[int]:
    """The row ids of a contact's conversations."""
    return (
        select(ConversationRow.id)
        .join(IdentityRow, IdentityRow.contact_id == ConversationRow.contact_id)
        .where(IdentityRow.kind == contact.kind.value, IdentityRow.value == contact.value)
    )


def _bounds(wanted: MessageFilter, after: ListPosition | None) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        bounds.append(MessageRow.created_at >= wanted.since)
    if after is not None:
        bounds.append(tuple_(MessageRow.created_at, MessageRow.id) < after)
    elif wanted.until is not None:
        # A position lies before it anyway.
        bounds.append(MessageRow.created_at < wanted.until)
    return bounds
