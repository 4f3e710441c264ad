"""A person takes over a conversation from the assistant, within the caller's transaction."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.messaging.domain.conversation import PausedBy
from services.messaging.store.models import (
    ContactRow,
    ConversationAliasRow,
    ConversationRow,
    PendingReplyRow,
)


def known_as(public_id: str) -> ColumnElement[bool]:
    """Whether a conversation has this id, or had it before it was merged into another."""
    earlier = select(ConversationAliasRow.conversation_id).where(
        ConversationAliasRow.public_id == public_id
    )
    return or_(
        ConversationRow.public_id == public_id, ConversationRow.id == earlier.scalar_subquery()
    )


async def conversation_key(connection: AsyncConnection, public_id: str) -> int:
    """The row id of a conversation, by its id or one that it had before.

    Raises:
        NotFoundError: There is none.
    """
    row_id = await connection.scalar(select(ConversationRow.id).where(known_as(public_id)))
    if row_id is None:
        raise NotFoundError("there is no conversation with this id")
    return row_id


async def held_conversation(connection: AsyncConnection, public_id: str) -> int:
    """Like `conversation_key`; until the transaction ends it can't be merged into another.

    Call it before the transaction locks anything else.
    """
    while True:
        row_id = await conversation_key(connection, public_id)
        held = await connection.scalar(
            select(ConversationRow.id)
            .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
            .where(ConversationRow.id == row_id)
            .with_for_update(read=True, key_share=True, of=ContactRow)
        )
        # Otherwise it was merged a moment ago: its id leads to another now.
        if held is not None:
            return held


async def pause(
    connection: AsyncConnection, conversation_id: int, by: PausedBy, now: datetime
) -> None:
    """Silence the assistant; who was first to do so stays written down.

    Call it before the transaction locks anything of the contact or conversation.
    """
    await _forget_pending(connection, conversation_id)
    await connection.execute(
        update(ConversationRow)
        .where(ConversationRow.id == conversation_id)
        .values(
            assistant_paused_at=func.coalesce(ConversationRow.assistant_paused_at, now),
            assistant_paused_by=func.coalesce(ConversationRow.assistant_paused_by, by.value),
        )
    )


async def resume(connection: AsyncConnection, conversation_id: int) -> None:
    """Let the assistant answer again, from the contact's next message on."""
    # One may have slipped in while the pause waited for the conversation.
    await _forget_pending(connection, conversation_id)
    await connection.execute(
        update(ConversationRow)
        .where(ConversationRow.id == conversation_id)
        .values(assistant_paused_at=None, assistant_paused_by=None)
    )


async def _forget_pending(connection: AsyncConnection, conversation_id: int) -> None:
    await connection.execute(
        delete(PendingReplyRow).where(PendingReplyRow.conversation_id == conversation_id)
    )
