"""Storing a message for sending, within the caller's transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PolicyRefusedError,
)
from services.messaging.domain.message import (
    Author,
    Direction,
    Message,
    MessageStatus,
    TimeSource,
)
from services.messaging.ports.sending import NewMessage
from services.messaging.store.contacts import new_public_id
from services.messaging.store.models import (
    ContactRow,
    ConversationRow,
    MessageEventRow,
    MessageRow,
    OutboxRow,
)
from services.messaging.store.rows import insert_ignoring, message_of, select_messages
from services.messaging.usecases.policy import RecipientFacts, SendPolicy


async def insert_queued(
    connection: AsyncConnection,
    message: NewMessage,
    *,
    conversation_id: int,
    answers_id: int | None,
    policy: SendPolicy,
    now: datetime,
) -> Message | None:
    """Store a message and its place in the outbox, within the caller's transaction.

    Returns None, and stores nothing, when its `request_id` or `answers_id` is taken.

    Raises:
        InvalidInputError: `reply_to_message_id` is no message of the conversation.
        PolicyRefusedError: A rule forbids the message.
    """
    # Locked before the message gets its number, and held until the commit: so numbers become
    # visible in their order, and a conversation's oldest unsettled message stays its oldest.
    conversation = await _locked(connection, conversation_id)
    if message.author is Author.ASSISTANT and conversation.assistant_paused_at is not None:
        raise PolicyRefusedError("paused", "the assistant is paused in this conversation")
    refusal = policy.refusal(
        RecipientFacts(conversation.opted_out_at, conversation.last_inbound_at),
        is_template=message.template is not None,
        now=now,
    )
    if refusal is not None:
        raise refusal
    waits = await _something_is_before(connection, conversation_id)
    if waits:
        waiting = await _waiting(connection, conversation_id, policy.max_waiting)
        if (overload := policy.overload(waiting, now)) is not None:
            raise overload
    reply_to_id = await _replied_to(connection, conversation_id, message.reply_to_message_id)
    due_at, paced_until = policy.pace.book(conversation.paced_until, now)
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
            "media": [{"url": one.url, "content_type": one.content_type} for one in message.media],
            "template": message.template
            and {"id": message.template.id, "variables": dict(message.template.variables)},
            "reply_to_id": reply_to_id,
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
    await connection.execute(
        update(ConversationRow)
        .where(ConversationRow.id == conversation_id)
        .values(
            contact_address=message.contact_address, last_message_at=now, paced_until=paced_until
        )
    )
    row = (await connection.execute(select_messages().where(MessageRow.id == row_id))).one()
    await connection.execute(
        insert(MessageEventRow).values(
            message_id=row_id,
            event_key=f"queued:{row.public_id}",
            kind="queued",
            status=MessageStatus.QUEUED.value,
            provider=message.provider,
            occurred_at=now,
            source=TimeSource.RECEIVED.value,
            payload={},
        )
    )
    await connection.execute(
        insert(OutboxRow).values(
            message_id=row_id,
            conversation_id=conversation_id,
            state="waiting" if waits else "due",
            attempts=0,
            due_at=due_at,
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
            "request_id: it was used before with another request; use a new one"
        )
    return message_of(row)


async def _locked(connection: AsyncConnection, conversation_id: int) -> Row[*tuple[Any, ...]]:
    return (
        await connection.execute(
            select(
                ConversationRow.last_inbound_at,
                ConversationRow.paced_until,
                ConversationRow.assistant_paused_at,
                ContactRow.opted_out_at,
            )
            .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
            .where(ConversationRow.id == conversation_id)
            .with_for_update(of=ConversationRow, key_share=True)
        )
    ).one()


async def _something_is_before(connection: AsyncConnection, conversation_id: int) -> bool:
    """Whether the conversation has an unsettled message, which stays unsettled until the commit.

    Whoever settles it releases the next one: this waits for them, or they for us.
    """
    oldest = (
        select(OutboxRow.message_id)
        .where(OutboxRow.conversation_id == conversation_id)
        .order_by(OutboxRow.message_id)
        .limit(1)
    )
    while await connection.scalar(oldest) is not None:
        # Comes back empty when it was settled while we waited for its lock.
        if await connection.scalar(oldest.with_for_update(read=True, key_share=True)) is not None:
            return True
    return False


async def _waiting(connection: AsyncConnection, conversation_id: int, most: int) -> int:
    some = (
        select(OutboxRow.message_id)
        .where(OutboxRow.conversation_id == conversation_id)
        .limit(most)
        .subquery()
    )
    return await connection.scalar(select(func.count()).select_from(some)) or 0


async def _replied_to(
    connection: AsyncConnection, conversation_id: int, message_id: str | None
) -> int | None:
    if message_id is None:
        return None
    row_id = await connection.scalar(
        select(MessageRow.id).where(
            MessageRow.public_id == message_id, MessageRow.conversation_id == conversation_id
        )
    )
    if row_id is None:
        raise InvalidInputError(
            "reply_to_message_id", "is no message of the conversation with this contact"
        )
    return row_id
