"""Taking what is due from the outbox, within the caller's transaction."""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.message import MessageStatus, TimeSource
from services.messaging.ports.sending import ClaimedSend, Routes
from services.messaging.store.base import UtcDateTime
from services.messaging.store.bulk import among
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.forbidding import fail_forbidden
from services.messaging.store.message_models import MessageRow
from services.messaging.store.moving import may_move_to
from services.messaging.store.outcomes import move
from services.messaging.store.rows import insert_ignoring
from services.messaging.store.unsettled import (
    DUE,
    SENDING,
    UNKNOWN,
    claimed_send,
    oldest_of_its_conversation,
    select_unsettled,
)
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.policy import SendPolicy


async def claim_due(
    connection: AsyncConnection,
    *,
    limit: int,
    lease: timedelta,
    routes: Routes,
    policy: SendPolicy,
    now: datetime,
) -> Sequence[ClaimedSend]:
    """Take messages that are due, the oldest of each conversation, and record the attempt.

    A message that a rule has come to forbid meanwhile is failed instead.
    """
    due = _due().where(*_on(routes, policy, now)) if routes.closed else _due()
    found = (await connection.execute(due, {"now": now, "most": limit})).all()
    providers = {row.message_id: routes.instead.get(row.provider, row.provider) for row in found}
    rows = await fail_forbidden(connection, found, providers, policy, now)
    if not rows:
        return ()
    for provider in sorted(set(routes.instead.values())):
        moved = [
            row.message_id for row in rows if providers[row.message_id] == provider != row.provider
        ]
        await move(connection, moved, provider)
    await _begin_attempts(connection, rows, providers, now, now + lease)
    return [
        claimed_send(
            row,
            provider=providers[row.message_id],
            attempt=row.attempts + 1,
            first_attempt_at=row.first_attempt_at or now,
            last_attempt_at=now,
            lease_until=now + lease,
        )
        for row in rows
    ]


@functools.cache
def _due() -> Select[*tuple[Any, ...]]:
    return (
        select_unsettled()
        .where(
            OutboxRow.state == DUE,
            OutboxRow.due_at <= bindparam("now"),
            # Both hold, but where a merge of contacts has brought conversations together.
            OutboxRow.message_id == oldest_of_its_conversation(),
            OutboxRow.conversation_id.not_in(_busy_conversations()),
        )
        .limit(bindparam("most", type_=Integer))
    )


async def claim_unknown(
    connection: AsyncConnection, *, limit: int, lease: timedelta, now: datetime
) -> Sequence[ClaimedSend]:
    """Take sends whose outcome is unknown and whose time to look has come."""
    rows = (await connection.execute(_unknown(), {"now": now, "most": limit})).all()
    if not rows:
        return ()
    await connection.execute(
        update(OutboxRow)
        .where(OutboxRow.message_id.in_([row.message_id for row in rows]))
        .values(lease_until=now + lease)
    )
    return [
        claimed_send(
            row,
            attempt=row.attempts,
            first_attempt_at=row.first_attempt_at,
            last_attempt_at=row.last_attempt_at,
            lease_until=now + lease,
        )
        for row in rows
    ]


@functools.cache
def _unknown() -> Select[*tuple[Any, ...]]:
    now = bindparam("now", type_=UtcDateTime)
    return (
        select_unsettled()
        .where(
            OutboxRow.state == UNKNOWN,
            OutboxRow.due_at <= now,
            or_(OutboxRow.lease_until.is_(None), OutboxRow.lease_until <= now),
            _takes_from_nobody(),
        )
        .limit(bindparam("most", type_=Integer))
    )


async def _begin_attempts(
    connection: AsyncConnection,
    rows: Sequence[Row[*tuple[Any, ...]]],
    providers: Mapping[int, str],
    now: datetime,
    lease_until: datetime,
) -> None:
    dialect, ids = connection.dialect.name, [row.message_id for row in rows]
    await connection.execute(
        _sending(dialect), {"message_ids": ids, "now": now, "until": lease_until}
    )
    await connection.execute(_shown_as_sending(dialect), {"message_ids": ids})
    await connection.execute(
        insert_ignoring(connection, MessageEventRow),
        [
            {
                "message_id": row.message_id,
                "event_key": f"attempt:{row.public_id}:{row.attempts + 1}",
                "kind": "attempt",
                "status": MessageStatus.SENDING.value,
                "provider": providers[row.message_id],
                "occurred_at": now,
                "source": TimeSource.RECEIVED.value,
                "payload": {"attempt": row.attempts + 1},
                "journaled": False,
            }
            for row in rows
        ],
    )


@functools.cache
def _sending(dialect: str) -> Update:
    now = bindparam("now", type_=UtcDateTime)
    return (
        update(OutboxRow)
        .where(among(dialect, OutboxRow.message_id, "message_ids"))
        .values(
            state=SENDING,
            attempts=OutboxRow.attempts + 1,
            lease_until=bindparam("until"),
            first_attempt_at=func.coalesce(OutboxRow.first_attempt_at, now),
            last_attempt_at=now,
        )
    )


@functools.cache
def _shown_as_sending(dialect: str) -> Update:
    return (
        update(MessageRow)
        .where(
            among(dialect, MessageRow.id, "message_ids"),
            MessageRow.status == MessageStatus.QUEUED.value,
        )
        .values(status=MessageStatus.SENDING.value)
    )


@functools.cache
def _takes_from_nobody() -> ColumnElement[bool]:
    """A restored message that only the provider knows the text of may be whatever is listed.

    A conversation may have several that are unknown after a replay: those with a text first.
    """
    other, message = aliased(OutboxRow), aliased(MessageRow)
    with_a_text = (
        select(other.conversation_id)
        .join(message, message.id == other.message_id)
        .where(other.restored, other.state == UNKNOWN, message.body != "")
    )
    return or_(
        OutboxRow.restored.is_(False),
        MessageRow.body != "",
        OutboxRow.conversation_id.not_in(with_a_text),
    )


@functools.cache
def _busy_conversations() -> Select[int]:
    """A list, not "none exists", for which PostgreSQL may read the whole table."""
    other = aliased(OutboxRow)
    return select(other.conversation_id).where(other.state.in_((SENDING, UNKNOWN)))


def _on(routes: Routes, policy: SendPolicy, now: datetime) -> list[ColumnElement[bool]]:
    """What of the outbox may be claimed by these routes, some of which are closed."""
    elsewhere = [
        and_(
            MessageRow.provider == provider,
            OutboxRow.pinned.is_(False),
            may_move_to(instead, policy, now),
        )
        for provider, instead in sorted(routes.instead.items())
    ]
    return [or_(MessageRow.provider.not_in(routes.closed), *elsewhere)]
