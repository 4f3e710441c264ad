"""Conversations that wait for the assistant."""

import functools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    bindparam,
    case,
    delete,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from services.common.errors import SwitchboardError
from services.messaging.domain.message import Message
from services.messaging.ports.answering import ReplyTask
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import NewMessage
from services.messaging.store.base import UtcDateTime
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.queueing import (
    AnyRow,
    Queueing,
    insert_queued,
    select_conversations,
)
from services.messaging.store.reply_tasks import reply_tasks
from services.messaging.store.work_models import PendingReplyRow
from services.messaging.usecases.policy import SendPolicy

log = structlog.get_logger(__name__)


class SqlReplyStore:
    """`ReplyStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock, policy: SendPolicy | None = None) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy or SendPolicy()
        self._latest_first = False

    async def claim_replies(
        self, *, limit: int, lease: timedelta, context: int, max_answers: int
    ) -> Sequence[ReplyTask]:
        """Take conversations whose time has come, each with its last `context` messages.

        While more wait than are taken, every other claim takes those that have waited least: after
        a breakdown, whoever writes now isn't answered after all who wrote meanwhile.
        """
        if limit <= 0:
            return ()
        now = self._clock()
        # The common answer is "nothing", and it should not take SQLite's write lock.
        if self._database.dialect == "sqlite" and not await self._any_due(now):
            return ()
        async with self._database.write() as connection:
            claimed = await connection.scalars(
                _claiming(self._latest_first), {"now": now, "most": limit, "until": now + lease}
            )
            ids = list(claimed)
            self._latest_first = len(ids) == limit and not self._latest_first
            if not ids:
                return ()
            return await reply_tasks(
                connection, ids, context=context, max_answers=max_answers, now=now
            )

    async def _any_due(self, now: datetime) -> bool:
        async with self._database.read() as connection:
            found = await connection.execute(_due(), {"now": now, "most": 1})
            return found.first() is not None

    async def answer(self, task: ReplyTask, message: NewMessage) -> Message | None:
        """Store the answer for sending and end the task, in one transaction."""
        now = self._clock()
        async with self._database.write() as connection:
            # Before the pending reply, as whoever stores the contact's next message does.
            conversation = await _locked(connection, task)
            if conversation is None or not await _end(connection, task, now):
                return None
            answer = Queueing(
                message,
                conversation,
                answers_id=task.up_to,
                answers_message_id=task.up_to_message_id,
            )
            [stored] = await insert_queued(connection, [answer], policy=self._policy, now=now)
            if isinstance(stored, SwitchboardError):
                log.warning("an answer was not sent", reason=stored.reason, **stored.metadata())
                return None
            return stored

    async def give_back(self, task: ReplyTask, due_at: datetime) -> None:
        """Try again at `due_at`, unless the contact's next message comes first."""
        async with self._database.write() as connection:
            await _release(connection, task, due_at)

    async def drop(self, task: ReplyTask) -> None:
        """End a task without an answer: a person has to take over."""
        async with self._database.write() as connection:
            ended = delete(PendingReplyRow).where(*_claimed_by(task), _of_newest(task))
            if not (await connection.execute(ended)).rowcount:
                await _release(connection, task)


@functools.cache
def _due(latest_first: bool = False) -> Select[int]:
    now = bindparam("now", type_=UtcDateTime)
    return (
        select(PendingReplyRow.conversation_id)
        .where(
            PendingReplyRow.due_at <= now,
            or_(PendingReplyRow.lease_until.is_(None), PendingReplyRow.lease_until <= now),
        )
        .order_by(PendingReplyRow.due_at.desc() if latest_first else PendingReplyRow.due_at)
        .limit(bindparam("most", type_=Integer))
    )


@functools.cache
def _claiming(latest_first: bool) -> ReturningUpdate[int]:
    # By name: as a subquery PostgreSQL might run it again for each row, and claim too many.
    due = _due(latest_first).with_for_update(skip_locked=True).cte("due")
    return (
        update(PendingReplyRow)
        .where(PendingReplyRow.conversation_id.in_(select(due.c.conversation_id)))
        .values(lease_until=bindparam("until"), attempts=PendingReplyRow.attempts + 1)
        .returning(PendingReplyRow.conversation_id)
    )


async def _locked(connection: AsyncConnection, task: ReplyTask) -> AnyRow | None:
    """The task's conversation; None when it was merged into another.

    When a merge that we waited for has moved it to another contact, the statement that waited
    doesn't find it: PostgreSQL still joins it with the old contact. A new one does.
    """
    wanted = {"conversation_id": task.conversation_id}
    found = (await connection.execute(_locking(), wanted)).first()
    return found or (await connection.execute(_locking(), wanted)).first()


@functools.cache
def _locking() -> Select[*tuple[Any, ...]]:
    of_task = ConversationRow.id == bindparam("conversation_id")
    return select_conversations(lock=True).where(of_task)


def _claimed_by(task: ReplyTask) -> Sequence[ColumnElement[bool]]:
    """Otherwise another process has taken over."""
    return (
        PendingReplyRow.conversation_id == task.conversation_id,
        PendingReplyRow.lease_until == task.lease_until,
    )


def _of_newest(task: ReplyTask) -> ColumnElement[bool]:
    """Whether the contact hasn't written again."""
    return PendingReplyRow.up_to_id == task.up_to


async def _release(
    connection: AsyncConnection, task: ReplyTask, due_at: datetime | None = None
) -> None:
    """In one statement: changing a row twice asks for its conversation, which a merge may hold."""
    values: dict[str, Any] = {"lease_until": None}
    if due_at is not None:
        then = literal(due_at, UtcDateTime)
        values["due_at"] = case((_of_newest(task), then), else_=PendingReplyRow.due_at)
    await connection.execute(update(PendingReplyRow).where(*_claimed_by(task)).values(values))


async def _end(connection: AsyncConnection, task: ReplyTask, now: datetime) -> bool:
    """Whether the answer is still wanted; if so the task is over.

    Lock the conversation first, as whoever stores the contact's next message does.
    """
    if await _ended(connection, task):
        return True
    pending = (
        await connection.execute(
            select(PendingReplyRow.latest_at, PendingReplyRow.lease_until)
            .where(PendingReplyRow.conversation_id == task.conversation_id)
            .with_for_update()
        )
    ).first()
    # Who has taken over answers it all.
    if pending is None or pending.lease_until not in (None, task.lease_until):
        return False
    # The contact wrote again meanwhile. One answer shall cover it all, as long as that can wait.
    await _release(connection, task)
    return bool(now >= pending.latest_at)


async def _ended(connection: AsyncConnection, task: ReplyTask) -> bool:
    """Remove the task; one for a newer message stays."""
    ended = await connection.scalar(
        _ending(), {"conversation_id": task.conversation_id, "up_to_id": task.up_to}
    )
    return ended is not None


@functools.cache
def _ending() -> ReturningDelete[int]:
    return (
        delete(PendingReplyRow)
        .where(
            PendingReplyRow.conversation_id == bindparam("conversation_id"),
            PendingReplyRow.up_to_id == bindparam("up_to_id"),
        )
        .returning(PendingReplyRow.conversation_id)
    )
