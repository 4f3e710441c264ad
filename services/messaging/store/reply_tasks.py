"""What the assistant is told of conversations that it is to answer, and how often it is asked."""

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Select, Update, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.contact import whatsapp_identity
from services.messaging.domain.message import Direction, MessageStatus
from services.messaging.ports.answering import ANSWERS_COUNTED, ReplyTask, Turn
from services.messaging.store.bulk import among
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.queueing import AnyRow
from services.messaging.store.work_models import PendingReplyRow

_FAILED = (MessageStatus.FAILED.value, MessageStatus.UNDELIVERED.value)


async def reply_tasks(
    connection: AsyncConnection,
    conversation_ids: Sequence[int],
    *,
    context: int,
    max_answers: int,
    now: datetime,
) -> Sequence[ReplyTask]:
    """The tasks of conversations that the caller's transaction has claimed.

    What the assistant will be asked is counted here and not with the answers: those that are
    thrown away, because the contact opts out or writes again, cost as much.
    """
    dialect = connection.dialect.name
    found = await connection.execute(
        _tasks(dialect),
        {
            "conversation_ids": conversation_ids,
            "counted_since": now - ANSWERS_COUNTED,
            "max_answers": max_answers,
        },
    )
    rows = found.all()
    if asked := [row.up_to_id for row in rows if not row.too_many]:
        await connection.execute(_asking(dialect), {"message_ids": asked, "now": now})
    return [await _task(connection, row, context) for row in rows]


@functools.cache
def _tasks(dialect: str) -> Select[*tuple[Any, ...]]:
    """What is known of claimed conversations, those that have waited longest first."""
    asked = (
        select(func.count())
        .where(
            MessageRow.conversation_id == ConversationRow.id,
            # By the index: an answer is asked for soon, or not at all.
            MessageRow.created_at > bindparam("counted_since"),
            MessageRow.asked_at.is_not(None),
            # Trying again is the same question.
            MessageRow.id != PendingReplyRow.up_to_id,
        )
        .correlate(ConversationRow, PendingReplyRow)
        .scalar_subquery()
    )
    newest = aliased(MessageRow)
    return (
        select(
            PendingReplyRow.conversation_id,
            PendingReplyRow.up_to_id,
            PendingReplyRow.attempts,
            PendingReplyRow.lease_until,
            ConversationRow.contact_address,
            ConversationRow.own_address,
            newest.public_id,
            newest.traceparent,
            (asked >= bindparam("max_answers", type_=Integer)).label("too_many"),
        )
        .join(ConversationRow, ConversationRow.id == PendingReplyRow.conversation_id)
        .join(newest, newest.id == PendingReplyRow.up_to_id)
        .where(among(dialect, PendingReplyRow.conversation_id, "conversation_ids"))
        .order_by(PendingReplyRow.due_at)
    )


@functools.cache
def _asking(dialect: str) -> Update:
    wanted = (
        select(MessageRow.id)
        .where(among(dialect, MessageRow.id, "message_ids"))
        .order_by(MessageRow.id)
        .with_for_update(key_share=True)
        .cte("wanted")
    )
    return (
        update(MessageRow)
        .where(MessageRow.id.in_(select(wanted.c.id)))
        .values(asked_at=bindparam("now"))
    )


@functools.cache
def _turns() -> Select[str, str]:
    return (
        select(MessageRow.direction, MessageRow.body)
        .where(
            MessageRow.conversation_id == bindparam("conversation_id"),
            MessageRow.id <= bindparam("up_to_id"),
            MessageRow.body != "",
            # What never arrived was not said.
            MessageRow.status.not_in(_FAILED),
        )
        .order_by(MessageRow.created_at.desc(), MessageRow.id.desc())
        .limit(bindparam("most", type_=Integer))
    )


async def _task(connection: AsyncConnection, row: AnyRow, context: int) -> ReplyTask:
    newest_first = await connection.execute(
        _turns(),
        {
            "conversation_id": row.conversation_id,
            "up_to_id": row.up_to_id,
            "most": context,
        },
    )
    turns = [Turn(Direction(turn.direction), turn.body) for turn in newest_first]
    recipient = whatsapp_identity(row.contact_address)
    if recipient is None:
        raise ValueError("a conversation has an address that is no WhatsApp address")
    return ReplyTask(
        conversation_id=row.conversation_id,
        up_to=row.up_to_id,
        up_to_message_id=row.public_id,
        turns=tuple(reversed(turns)),
        recipient=recipient,
        contact_address=row.contact_address,
        own_address=row.own_address,
        attempt=row.attempts,
        lease_until=row.lease_until,
        too_many=row.too_many,
        traceparent=row.traceparent or "",
    )
