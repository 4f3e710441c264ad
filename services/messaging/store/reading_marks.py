"""Up to where the business has read a conversation, within the caller's transaction."""

from datetime import datetime
from typing import Final

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import InvalidInputError
from services.messaging.domain.message import Direction
from services.messaging.ports.reading import ListPosition
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.pausing import add_event

READ: Final = "read"


async def mark_read(
    connection: AsyncConnection, conversation_id: int, up_to: str | None, now: datetime
) -> None:
    """Note that messages were read, up to one of them or all, if that is news; and the act.

    Raises:
        InvalidInputError: `up_to` is no message of the conversation.
    """
    newest = await set_mark(connection, conversation_id, up_to)
    if newest is None:
        return
    public_id = await connection.scalar(
        select(ConversationRow.public_id).where(ConversationRow.id == conversation_id)
    )
    await add_event(connection, conversation_id, str(public_id), READ, now, message_id=newest[1])


async def set_mark(
    connection: AsyncConnection, conversation_id: int, up_to: str | None
) -> ListPosition | None:
    """Note that messages were read; the newest of them, or None when nothing has changed by it.

    Raises:
        InvalidInputError: `up_to` is no message of the conversation.
    """
    # Whoever stores a message counts it with this row locked: so it is either among those
    # counted below, or is added to the count afterwards.
    before = (
        await connection.execute(
            select(ConversationRow.read_up_to_id, ConversationRow.unread_count)
            .where(ConversationRow.id == conversation_id)
            .with_for_update(key_share=True)
        )
    ).one()
    newest = await _message_read(connection, conversation_id, up_to)
    known = await _place(connection, before.read_up_to_id)
    if newest is None or (known is not None and newest < known):
        return None
    unread = await connection.scalar(_unread_after(conversation_id, newest))
    if (newest[1], unread) == (before.read_up_to_id, before.unread_count):
        return None
    await connection.execute(
        update(ConversationRow)
        .where(ConversationRow.id == conversation_id)
        .values(read_up_to_id=newest[1], unread_count=unread)
    )
    return newest


async def _message_read(
    connection: AsyncConnection, conversation_id: int, up_to: str | None
) -> ListPosition | None:
    """The place of the message named, or of the newest; None when there is no message yet."""
    query = select(MessageRow.created_at, MessageRow.id).where(
        MessageRow.conversation_id == conversation_id
    )
    if up_to is not None:
        query = query.where(MessageRow.public_id == up_to)
    row = (
        await connection.execute(
            query.order_by(MessageRow.created_at.desc(), MessageRow.id.desc()).limit(1)
        )
    ).first()
    if row is None and up_to is not None:
        raise InvalidInputError("up_to_message_id", "is not a message of this conversation")
    return None if row is None else (row.created_at, row.id)


async def _place(connection: AsyncConnection, row_id: int | None) -> ListPosition | None:
    if row_id is None:
        return None
    created_at = await connection.scalar(
        select(MessageRow.created_at).where(MessageRow.id == row_id)
    )
    return None if created_at is None else (created_at, row_id)


def _unread_after(conversation_id: int, place: ListPosition) -> Select[int]:
    return select(func.count()).where(
        MessageRow.conversation_id == conversation_id,
        MessageRow.direction == Direction.INBOUND.value,
        tuple_(MessageRow.created_at, MessageRow.id) > place,
    )
