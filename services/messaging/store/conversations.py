"""Conversations: reading them, marking them as read, and who answers in them."""

import functools
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.conversation import Contact, Conversation, PausedBy
from services.messaging.domain.message import Message
from services.messaging.ports.clock import Clock
from services.messaging.ports.reading import ConversationPage, ListPosition
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import ContactRow, ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow
from services.messaging.store.paging import MESSAGE_LENGTH, AnyRow, fitting
from services.messaging.store.pausing import held_conversation, known_as, pause, resume
from services.messaging.store.queries import conversations_with
from services.messaging.store.reading_marks import mark_read
from services.messaging.store.rows import message_of, select_messages

_NEWEST_FIRST = (ConversationRow.last_message_at.desc(), ConversationRow.id.desc())


class SqlConversationStore:
    """`ConversationStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def conversations(self, *, limit: int, after: ListPosition | None) -> ConversationPage:
        """A page of conversations that follow a position, newest message first."""
        async with self._database.read(snapshot=True) as connection:
            rows = (await connection.execute(newest_conversations(after, limit=limit + 1))).all()
            page = fitting(rows[:limit])
            conversations = await _read(connection, page)
        return ConversationPage(
            conversations=tuple(conversations),
            following=(page[-1].last_message_at, page[-1].id) if len(rows) > len(page) else None,
        )

    async def conversation(self, conversation_id: str) -> Conversation:
        """One conversation by its id, or one that it had before."""
        async with self._database.read(snapshot=True) as connection:
            rows = await connection.execute(
                _select_conversations().where(known_as(conversation_id))
            )
            conversations = await _read(connection, rows.all())
        if not conversations:
            raise NotFoundError("there is no conversation with this id")
        return conversations[0]

    async def conversation_with(self, contact: Identity) -> Conversation:
        """The conversation with a contact; of several the one with the newest message."""
        async with self._database.read(snapshot=True) as connection:
            row_id = await connection.scalar(
                conversations_with(contact).order_by(*_NEWEST_FIRST).limit(1)
            )
            if row_id is None:
                raise NotFoundError("there is no conversation with this contact")
            return await _one(connection, row_id)

    async def mark_read(self, conversation_id: str, up_to: str | None) -> Conversation:
        """Note that messages were read, up to one of them or all; never takes that back."""
        async with self._database.write() as connection:
            row_id = await held_conversation(connection, conversation_id)
            await mark_read(connection, row_id, up_to, self._clock())
            return await _one(connection, row_id)

    async def pause_assistant(self, conversation_id: str) -> Conversation:
        """Silence the assistant, also for what waits for its answer."""
        async with self._database.write() as connection:
            row_id = await held_conversation(connection, conversation_id)
            await pause(connection, row_id, PausedBy.API, self._clock())
            return await _one(connection, row_id)

    async def resume_assistant(self, conversation_id: str) -> Conversation:
        """Let the assistant answer again, from the contact's next message on."""
        async with self._database.write() as connection:
            row_id = await held_conversation(connection, conversation_id)
            await resume(connection, row_id, self._clock())
            return await _one(connection, row_id)


def newest_conversations(after: ListPosition | None, *, limit: int) -> Select[*tuple[Any, ...]]:
    """The conversations that follow a position, read from the end of an index.

    `length` is that of the newest message, which isn't read yet.
    """
    length = func.coalesce(_of_newest_message(MESSAGE_LENGTH), 0)
    query = _select_conversations().add_columns(length.label("length"))
    query = query.order_by(*_NEWEST_FIRST).limit(limit)
    if after is not None:
        query = query.where(tuple_(ConversationRow.last_message_at, ConversationRow.id) < after)
    return query


def _of_newest_message(column: ColumnElement[Any]) -> ScalarSelect[Any]:
    return (
        select(column)
        .where(MessageRow.conversation_id == ConversationRow.id)
        .order_by(MessageRow.created_at.desc(), MessageRow.id.desc())
        .limit(1)
        .correlate(ConversationRow)
        .scalar_subquery()
    )


@functools.cache
def _select_conversations() -> Select[*tuple[Any, ...]]:
    return select(
        ConversationRow.id,
        ConversationRow.public_id,
        ConversationRow.contact_id,
        ConversationRow.contact_address,
        ConversationRow.own_address,
        ConversationRow.created_at,
        ConversationRow.last_message_at,
        ConversationRow.last_inbound_at,
        ConversationRow.unread_count,
        ConversationRow.assistant_paused_at,
        ConversationRow.assistant_paused_by,
        ContactRow.public_id.label("contact_public_id"),
        ContactRow.display_name,
        ContactRow.opted_out_at,
        _of_newest_message(MessageRow.id.expression).label("newest_id"),
    ).join(ContactRow, ContactRow.id == ConversationRow.contact_id)


async def _one(connection: AsyncConnection, row_id: int) -> Conversation:
    rows = await connection.execute(_select_conversations().where(ConversationRow.id == row_id))
    [conversation] = await _read(connection, rows.all())
    return conversation


async def _read(connection: AsyncConnection, rows: Sequence[AnyRow]) -> list[Conversation]:
    identities = await _identities(connection, {row.contact_id for row in rows})
    newest = await _messages(connection, {row.newest_id for row in rows} - {None})
    return [
        Conversation(
            id=row.public_id,
            contact=Contact(
                id=row.contact_public_id,
                display_name=row.display_name,
                identities=tuple(identities.get(row.contact_id, ())),
                opted_out_at=row.opted_out_at,
            ),
            contact_address=row.contact_address,
            own_address=row.own_address,
            created_at=row.created_at,
            last_message_at=row.last_message_at,
            last_inbound_at=row.last_inbound_at,
            unread_count=row.unread_count,
            assistant_paused_at=row.assistant_paused_at,
            assistant_paused_by=(
                PausedBy(row.assistant_paused_by) if row.assistant_paused_by else None
            ),
            last_message=newest.get(row.newest_id),
        )
        for row in rows
    ]


async def _identities(
    connection: AsyncConnection, contact_ids: Collection[int]
) -> dict[int, list[Identity]]:
    found: dict[int, list[Identity]] = {}
    rows = await connection.execute(
        select(IdentityRow.contact_id, IdentityRow.kind, IdentityRow.value)
        .where(one_of(connection, IdentityRow.contact_id, contact_ids))
        .order_by(IdentityRow.id)
    )
    for row in rows:
        found.setdefault(row.contact_id, []).append(Identity(IdentityKind(row.kind), row.value))
    return found


async def _messages(connection: AsyncConnection, row_ids: Collection[int]) -> dict[int, Message]:
    rows = await connection.execute(
        select_messages().where(one_of(connection, MessageRow.id, row_ids))
    )
    return {row.id: message_of(row) for row in rows}
