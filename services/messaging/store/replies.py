"""Conversations that wait for the assistant."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import SwitchboardError
from services.messaging.domain.contact import whatsapp_identity
from services.messaging.domain.message import Author, Direction, Message, MessageStatus
from services.messaging.ports.answering import ANSWERS_COUNTED, ReplyTask, Turn
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import NewMessage
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow
from services.messaging.store.queueing import Queueing, conversations, insert_queued
from services.messaging.store.work_models import PendingReplyRow
from services.messaging.usecases.policy import SendPolicy

log = structlog.get_logger(__name__)

_FAILED = (MessageStatus.FAILED, MessageStatus.UNDELIVERED)


class SqlReplyStore:
    """`ReplyStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock, policy: SendPolicy | None = None) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy or SendPolicy()

    async def claim_replies(
        self, *, limit: int, lease: timedelta, context: int
    ) -> Sequence[ReplyTask]:
        """Take conversations whose time has come, each with its last `context` messages."""
        if limit <= 0:
            return ()
        now = self._clock()
        due = (
            select(PendingReplyRow.conversation_id, PendingReplyRow.up_to_id)
            .where(
                PendingReplyRow.due_at <= now,
                or_(PendingReplyRow.lease_until.is_(None), PendingReplyRow.lease_until <= now),
            )
            .order_by(PendingReplyRow.due_at)
            .limit(limit)
        )
        async with self._database.read() as connection:
            # The common answer is "nothing", and it should not take SQLite's write lock.
            if not (await connection.execute(due)).first():
                return ()
        async with self._database.write() as connection:
            rows = (await connection.execute(due.with_for_update(skip_locked=True))).all()
            ids = [row.conversation_id for row in rows]
            await connection.execute(
                update(PendingReplyRow)
                .where(PendingReplyRow.conversation_id.in_(ids))
                .values(lease_until=now + lease, attempts=PendingReplyRow.attempts + 1)
            )
            return [await _task(connection, one, context, now) for one in ids]

    async def answer(self, task: ReplyTask, message: NewMessage) -> Message | None:
        """Store the answer for sending and end the task, in one transaction."""
        now = self._clock()
        async with self._database.write() as connection:
            # Before the pending reply, as whoever stores the contact's next message does.
            locked = await conversations(
                connection, ConversationRow.id == task.conversation_id, lock=True
            )
            found = await connection.execute(
                select(PendingReplyRow.up_to_id, PendingReplyRow.latest_at)
                .where(PendingReplyRow.conversation_id == task.conversation_id)
                .with_for_update()
            )
            pending = found.first()
            if pending is None or not locked:
                return None
            moved_on = pending.up_to_id != task.up_to
            if moved_on and now < pending.latest_at:
                # The contact wrote again meanwhile: one answer shall cover it all.
                await _release(connection, task)
                return None
            await _end(connection, task)
            answer = Queueing(message, locked[0], answers_id=task.up_to)
            [stored] = await insert_queued(connection, [answer], policy=self._policy, now=now)
            if isinstance(stored, SwitchboardError):
                log.warning("an answer was not sent", reason=stored.reason, **stored.metadata())
                return None
            return stored

    async def give_back(self, task: ReplyTask, due_at: datetime) -> None:
        """Try again at `due_at`, unless the contact's next message comes first."""
        async with self._database.write() as connection:
            await connection.execute(
                update(PendingReplyRow)
                .where(
                    PendingReplyRow.conversation_id == task.conversation_id,
                    PendingReplyRow.up_to_id == task.up_to,
                )
                .values(due_at=due_at)
            )
            await _release(connection, task)

    async def drop(self, task: ReplyTask) -> None:
        """End a task without an answer: a person has to take over."""
        async with self._database.write() as connection:
            await _end(connection, task)


async def _task(
    connection: AsyncConnection, conversation_id: int, context: int, now: datetime
) -> ReplyTask:
    row = (
        await connection.execute(
            select(
                ConversationRow.contact_address,
                ConversationRow.own_address,
                PendingReplyRow.up_to_id,
                PendingReplyRow.attempts,
                MessageRow.traceparent,
            )
            .join(PendingReplyRow, PendingReplyRow.conversation_id == ConversationRow.id)
            .join(MessageRow, MessageRow.id == PendingReplyRow.up_to_id)
            .where(ConversationRow.id == conversation_id)
        )
    ).one()
    newest_first = await connection.execute(
        select(MessageRow.direction, MessageRow.body)
        .where(
            MessageRow.conversation_id == conversation_id,
            MessageRow.id <= row.up_to_id,
            MessageRow.body != "",
            # What never arrived was not said.
            MessageRow.status.not_in(_FAILED),
        )
        .order_by(MessageRow.created_at.desc(), MessageRow.id.desc())
        .limit(context)
    )
    answered = await connection.scalar(
        select(func.count())
        .select_from(MessageRow)
        .where(
            MessageRow.conversation_id == conversation_id,
            MessageRow.author == Author.ASSISTANT,
            MessageRow.created_at > now - ANSWERS_COUNTED,
        )
    )
    turns = [Turn(Direction(turn.direction), turn.body) for turn in newest_first]
    recipient = whatsapp_identity(row.contact_address)
    if recipient is None:
        raise ValueError("a conversation has an address that is no WhatsApp address")
    return ReplyTask(
        conversation_id=conversation_id,
        up_to=row.up_to_id,
        turns=tuple(reversed(turns)),
        recipient=recipient,
        contact_address=row.contact_address,
        own_address=row.own_address,
        attempt=row.attempts,
        answered=answered or 0,
        traceparent=row.traceparent or "",
    )


async def _release(connection: AsyncConnection, task: ReplyTask) -> None:
    await connection.execute(
        update(PendingReplyRow)
        .where(PendingReplyRow.conversation_id == task.conversation_id)
        .values(lease_until=None)
    )


async def _end(connection: AsyncConnection, task: ReplyTask) -> None:
    """Remove the task; one for a newer message stays, free to be taken."""
    await connection.execute(
        delete(PendingReplyRow).where(
            PendingReplyRow.conversation_id == task.conversation_id,
            PendingReplyRow.up_to_id == task.up_to,
        )
    )
    await _release(connection, task)
