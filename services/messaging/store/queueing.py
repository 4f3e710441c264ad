"""Storing a message for sending, within the caller's transaction."""

from datetime import datetime

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import IdempotencyConflictError
from services.messaging.domain.message import Direction, Message, MessageStatus, TimeSource
from services.messaging.ports.sending import NewMessage
from services.messaging.store.contacts import new_public_id
from services.messaging.store.models import (
    ConversationRow,
    MessageEventRow,
    MessageRow,
    OutboxRow,
)
from services.messaging.store.rows import insert_ignoring, message_of, select_messages


async def insert_queued(
    connection: AsyncConnection,
    message: NewMessage,
    *,
    conversation_id: int,
    answers_id: int | None,
    now: datetime,
) -> Message | None:
    """Store a message and its place in the outbox, within the caller's transaction.

    Returns None, and stores nothing, when its `request_id` or `answers_id` is taken.
    """
    # Before the message gets its number, and held until the commit: so numbers become visible in
    # their order, and a conversation's oldest unsettled message stays its oldest.
    await connection.execute(
        update(ConversationRow)
        .where(ConversationRow.id == conversation_id)
        .values(contact_address=message.contact_address, last_message_at=now)
    )
    row_id = await connection.scalar(
        insert_ignoring(connection, MessageRow).returning(MessageRow.id),
        {
            "public_id": new_public_id(),
            "conversation_id": conversation_id,
            "direction": Direction.OUTBOUND.value,
            "author": message.author.value,
            "contact_address": message.contact_address,
            "own_address": message.own_address,
            "body": message.body,
            "media": [],
            "provider": message.provider,
            "status": MessageStatus.QUEUED.value,
            "request_id": message.request_id,
            "request_hash": message.request_hash,
            "answers_id": answers_id,
            "created_at": now,
        },
    )
    if row_id is None:
        return None
    row = (await connection.execute(select_messages().where(MessageRow.id == row_id))).one()
    await connection.execute(
        insert(MessageEventRow).values(
            message_id=row_id,
            event_key=f"queued:{row.public_id}",
            kind="queued",
            status=MessageStatus.QUEUED.value,
            occurred_at=now,
            source=TimeSource.RECEIVED.value,
            payload={},
        )
    )
    await connection.execute(
        insert(OutboxRow).values(
            message_id=row_id, conversation_id=conversation_id, state="due", attempts=0, due_at=now
        )
    )
    return message_of(row)


async def requested_before(connection: AsyncConnection, message: NewMessage) -> Message | None:
    """The message stored first for a request.

    Raises:
        IdempotencyConflictError: The `request_id` stands for another request.
    """
    if message.request_id is None:
        return None
    row = (
        await connection.execute(
            select_messages().where(MessageRow.request_id == message.request_id)
        )
    ).first()
    if row is None:
        return None
    if row.request_hash != message.request_hash:
        raise IdempotencyConflictError(
            "request_id: it was used before with another `to` or `body`; use a new one"
        )
    return message_of(row)
