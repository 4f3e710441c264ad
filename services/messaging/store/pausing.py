"""A person takes over a conversation from the assistant, within the caller's transaction."""

from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.messaging.domain.conversation import PausedBy
from services.messaging.store.models import (
    ConversationAliasRow,
    ConversationRow,
    PendingReplyRow,
)


async def conversation_key(connection: AsyncConnection, public_id: str) -> int:
    """The row id of a conversation, by its id or one that it had before.

    Raises:
        NotFoundError: There is none.
    """
    for query in (
        select(ConversationRow.id).where(ConversationRow.public_id == public_id),
        select(ConversationAliasRow.conversation_id).where(
            ConversationAliasRow.public_id == public_id
        ),
    ):
        row_id = await connection.scalar(query)
        if row_id is not None:
            return row_id
    raise NotFoundError("there is no conversation with this id")


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
