"""What the end of an attempt makes of a row of the outbox, within the caller's transaction."""

import functools
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.moving import may_move_to
from services.messaging.store.outcomes import (
    AnyRow,
    accept,
    leave_outbox,
    move,
    record_outcome,
    reject,
)
from services.messaging.store.rows import DELIVERY_COLUMNS
from services.messaging.store.unsettled import DUE, UNKNOWN
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.policy import SendPolicy


async def settle_attempt(
    connection: AsyncConnection,
    message: ClaimedSend,
    outcome: SendOutcome,
    retry_at: datetime,
    *,
    move_to: str | None,
    policy: SendPolicy,
    now: datetime,
) -> bool:
    """Record how an attempt ended, as `OutboxStore.settle` says.

    Raises:
        LookupError: There is no such message.
    """
    found = await _locked(connection, message.message_id)
    row_id = found.id
    unsettled = None if found.attempts is None else found
    if outcome.kind is OutcomeKind.ACCEPTED:
        await record_outcome(connection, row_id, message, outcome, now)
        return await accept(connection, found, message, outcome, now)
    # Without a row the provider's own report has settled the message meanwhile.
    superseded = unsettled is None or unsettled.attempts != message.attempt
    lapsed = unsettled is None or unsettled.lease_until != message.lease_until
    with_provider = found.provider_message_id is not None
    await record_outcome(
        connection,
        row_id,
        message,
        outcome,
        now,
        void=outcome.kind is OutcomeKind.REJECTED and (superseded or lapsed or with_provider),
    )
    # Unknown counts even after the lease: it may only ever make us more careful.
    if superseded or (lapsed and outcome.kind is not OutcomeKind.UNKNOWN):
        return False
    if with_provider:
        # Whatever this attempt or look found: what has a provider's id is never sent again.
        return await leave_outbox(connection, [row_id])
    if outcome.kind is OutcomeKind.REJECTED:
        return await reject(connection, row_id, message, outcome, now)
    place = OutboxRow.message_id == row_id
    if outcome.kind is OutcomeKind.UNKNOWN:
        await connection.execute(
            update(OutboxRow)
            .where(place)
            .values(state=UNKNOWN, pinned=True, due_at=retry_at, lease_until=None)
        )
        return False
    if (
        move_to is not None
        and unsettled is not None
        and not unsettled.pinned
        and await _may_move(connection, row_id, move_to, policy, now)
    ):
        await move(connection, [row_id], move_to)
        retry_at = now
    await connection.execute(
        update(OutboxRow).where(place).values(state=DUE, due_at=retry_at, lease_until=None)
    )
    return retry_at <= now


async def _locked(connection: AsyncConnection, message_id: str) -> AnyRow:
    """The message and its place in the outbox, of which all is None when it has none."""
    for statement in (_unsettled(), _settled()):
        found = (await connection.execute(statement, {"message_id": message_id})).first()
        if found is not None:
            return found
    raise LookupError("a claimed message is not in the database")


@functools.cache
def _unsettled() -> Select[*tuple[Any, ...]]:
    return (
        select(
            MessageRow.id,
            MessageRow.provider_message_id,
            *DELIVERY_COLUMNS,
            OutboxRow.attempts,
            OutboxRow.lease_until,
            OutboxRow.pinned,
        )
        .join(OutboxRow, OutboxRow.message_id == MessageRow.id)
        .where(MessageRow.public_id == bindparam("message_id"))
        # Its place first, as everywhere.
        .with_for_update(of=[OutboxRow, MessageRow])
    )


@functools.cache
def _settled() -> Select[*tuple[Any, ...]]:
    return (
        select(
            MessageRow.id,
            MessageRow.provider_message_id,
            *DELIVERY_COLUMNS,
            null().label("attempts"),
            null().label("lease_until"),
            null().label("pinned"),
        )
        .where(MessageRow.public_id == bindparam("message_id"))
        .with_for_update()
    )


async def _may_move(
    connection: AsyncConnection, row_id: int, provider: str, policy: SendPolicy, now: datetime
) -> bool:
    found = await connection.scalar(
        select(MessageRow.id)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(MessageRow.id == row_id, may_move_to(provider, policy, now))
    )
    return found is not None
