"""A person takes over a conversation from the assistant, within the caller's transaction."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.messaging.domain.conversation import PausedBy
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import (
    ContactRow,
    ConversationAliasRow,
    ConversationRow,
)
from services.messaging.store.event_models import ConversationEventRow
from services.messaging.store.rows import insert_ignoring
from services.messaging.store.work_models import PendingReplyRow

PAUSED: Final = "paused"
RESUMED: Final = "resumed"


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
    public_id = await connection.scalar(
        update(ConversationRow)
        .where(
            ConversationRow.id == conversation_id,
            ConversationRow.assistant_paused_at.is_(None),
        )
        .values(assistant_paused_at=now, assistant_paused_by=by.value)
        .returning(ConversationRow.public_id)
    )
    if public_id is not None:
        await add_event(connection, conversation_id, public_id, PAUSED, now, paused_by=by.value)


async def resume(connection: AsyncConnection, conversation_id: int, now: datetime) -> None:
    """Let the assistant answer again, from the contact's next message on."""
    await _forget_pending(connection, conversation_id)
    public_id = await connection.scalar(
        update(ConversationRow)
        .where(
            ConversationRow.id == conversation_id,
            ConversationRow.assistant_paused_at.is_not(None),
        )
        .values(assistant_paused_at=None, assistant_paused_by=None)
        .returning(ConversationRow.public_id)
    )
    if public_id is not None:
        await add_event(connection, conversation_id, public_id, RESUMED, now)


async def add_event(
    connection: AsyncConnection,
    conversation_id: int,
    public_id: str,
    kind: str,
    now: datetime,
    **values: Any,
) -> None:
    """Write down what was done to a conversation; the journal learns of it from there."""
    await connection.execute(
        insert_ignoring(connection, ConversationEventRow).values(
            conversation_id=conversation_id,
            # The same when the message that brought it about is stored again.
            event_key=f"{kind}:{public_id}:{now.timestamp():.6f}",
            kind=kind,
            public_id=public_id,
            occurred_at=now,
            journaled=False,
            **values,
        )
    )


async def fold_pauses(connection: AsyncConnection, conversation_ids: Collection[int]) -> None:
    """Make the assistant silent or not in conversations, as what was done to them says.

    What was done last holds, and of several pauses the first, in whatever order they were written.
    """
    paused: dict[int, tuple[datetime, str] | None] = {}
    rows = await connection.execute(
        select(
            ConversationEventRow.conversation_id,
            ConversationEventRow.kind,
            ConversationEventRow.paused_by,
            ConversationEventRow.occurred_at,
        )
        .where(
            one_of(connection, ConversationEventRow.conversation_id, conversation_ids),
            ConversationEventRow.kind.in_((PAUSED, RESUMED)),
        )
        .order_by(ConversationEventRow.occurred_at, ConversationEventRow.event_key)
    )
    for row in rows:
        before = paused.get(row.conversation_id)
        first = before or (row.occurred_at, row.paused_by)
        paused[row.conversation_id] = first if row.kind == PAUSED else None
    for conversation_id, state in sorted(paused.items()):
        at, by = state or (None, None)
        if state:
            await _forget_pending(connection, conversation_id)
        await connection.execute(
            update(ConversationRow)
            .where(ConversationRow.id == conversation_id)
            .values(assistant_paused_at=at, assistant_paused_by=by)
        )


async def _forget_pending(connection: AsyncConnection, conversation_id: int) -> None:
    """Nobody waits for the assistant in this conversation, which is locked before."""
    await connection.execute(
        select(ConversationRow.id)
        .where(ConversationRow.id == conversation_id)
        .with_for_update(key_share=True)
    )
    await connection.execute(
        delete(PendingReplyRow).where(PendingReplyRow.conversation_id == conversation_id)
    )
