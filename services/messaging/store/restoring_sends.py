"""Attempts to send, and their ends, that come back from the journal."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import (
    Delivery,
    Direction,
    EventKind,
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
    fold,
)
from services.messaging.ports.acts import Act, Attempted, Ended
from services.messaging.ports.sending import OutcomeKind
from services.messaging.store.bulk import insert_many, one_of
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outcomes import VOID, leave_outbox
from services.messaging.store.restoring_messages import HELD
from services.messaging.store.rows import DELIVERY_COLUMNS, delivery_of, delivery_values
from services.messaging.store.unsettled import UNKNOWN
from services.messaging.store.work_models import OutboxRow

AnyRow = Row[*tuple[Any, ...]]


async def restore_sends(
    connection: AsyncConnection, acts: Sequence[Attempted | Ended], now: datetime
) -> tuple[int, list[Act]]:
    """Add attempts and their ends to messages, in the caller's transaction.

    Returns how many were new, and those whose message isn't there.
    """
    public_ids = {act.message_id for act in acts}
    places = {
        row.message_id: row
        for row in await connection.execute(
            select(
                OutboxRow.message_id,
                OutboxRow.attempts,
                OutboxRow.first_attempt_at,
            )
            .join(MessageRow, MessageRow.id == OutboxRow.message_id)
            .where(one_of(connection, MessageRow.public_id, public_ids))
            .order_by(OutboxRow.message_id)
            .with_for_update(of=OutboxRow)
        )
    }
    messages = {
        row.public_id: row
        for row in await connection.execute(
            select(
                MessageRow.id,
                MessageRow.public_id,
                MessageRow.provider,
                MessageRow.provider_message_id,
                *DELIVERY_COLUMNS,
            )
            .where(
                one_of(connection, MessageRow.public_id, public_ids),
                MessageRow.direction == Direction.OUTBOUND.value,
            )
            .order_by(MessageRow.id)
            .with_for_update()
        )
    }
    orphans: list[Act] = [act for act in acts if act.message_id not in messages]
    inserted = await insert_many(
        connection,
        MessageEventRow,
        [
            _sending_event(act, messages[act.message_id].id)
            for act in acts
            if act.message_id in messages
        ],
        MessageEventRow.event_key,
    )
    new = {row.event_key for row in inserted}
    news: dict[str, list[Attempted | Ended]] = {}
    for act in acts:
        if act.key in new:
            news.setdefault(act.message_id, []).append(act)
    settled: list[int] = []
    for public_id, happened in sorted(news.items(), key=lambda item: messages[item[0]].id):
        row = messages[public_id]
        if await _apply(connection, row, places.get(row.id), happened, now):
            settled.append(row.id)
    if settled:
        await leave_outbox(connection, settled)
    return len(new), orphans


async def _apply(
    connection: AsyncConnection,
    row: AnyRow,
    place: AnyRow | None,
    acts: Sequence[Attempted | Ended],
    now: datetime,
) -> bool:
    """Add to a message what is news about it; whether it is settled."""
    delivery, provider, provider_message_id = (
        delivery_of(row),
        row.provider,
        row.provider_message_id,
    )
    settled = False
    for act in sorted(acts, key=lambda one: (one.attempt, isinstance(one, Ended), one.at)):
        if isinstance(act, Ended) and act.void:
            continue
        provider = provider if provider_message_id else act.provider
        if isinstance(act, Attempted):
            delivery = _tried(delivery)
        elif act.outcome is OutcomeKind.ACCEPTED:
            provider_message_id = provider_message_id or act.provider_message_id
            delivery = _told(delivery, act, act.status)
            settled = True
        elif act.outcome is OutcomeKind.REJECTED:
            delivery = _told(delivery, act, MessageStatus.FAILED)
            settled = True
    await connection.execute(
        update(MessageRow)
        .where(MessageRow.id == row.id)
        .values(
            provider=provider,
            provider_message_id=provider_message_id,
            **delivery_values(delivery),
        )
    )
    if place is not None and not settled:
        tried = [act for act in acts if isinstance(act, Attempted)]
        times = [act.at for act in tried]
        await connection.execute(
            update(OutboxRow)
            .where(OutboxRow.message_id == row.id)
            .values(
                # A backup may have it as due, from before this.
                state=UNKNOWN,
                pinned=True,
                restored=True,
                attempts=max([place.attempts, *(act.attempt for act in tried)]),
                first_attempt_at=min(
                    [*times, *([place.first_attempt_at] if place.first_attempt_at else [])],
                    default=now,
                ),
                last_attempt_at=now,
                due_at=now + HELD,
                lease_until=None,
            )
        )
    return settled


def _tried(delivery: Delivery) -> Delivery:
    if delivery.status is not MessageStatus.QUEUED:
        return delivery
    return replace(delivery, status=MessageStatus.SENDING)


def _told(delivery: Delivery, act: Ended, status: MessageStatus | None) -> Delivery:
    return fold(
        delivery,
        StatusReport(
            event_key="",  # Not stored: the outcome's event stands for it.
            provider=act.provider,
            provider_message_id=act.provider_message_id or "",
            status=status,
            moment=Moment(act.at, TimeSource.RECEIVED),
            error_code=act.error_code,
            error_message=act.error_message,
        ),
    )


def _sending_event(act: Attempted | Ended, row_id: int) -> dict[str, Any]:
    event = {
        "message_id": row_id,
        "event_key": act.key,
        "kind": EventKind.ATTEMPT.value,
        "status": MessageStatus.SENDING.value,
        "error_code": None,
        "error_message": None,
        "provider": act.provider,
        "occurred_at": act.at,
        "source": TimeSource.RECEIVED.value,
        "payload": {"attempt": act.attempt},
        "journaled": True,
    }
    if isinstance(act, Attempted):
        return event
    payload: dict[str, Any] = {"attempt": act.attempt, "outcome": act.outcome.value}
    if act.provider_message_id:
        payload["provider_message_id"] = act.provider_message_id
    if act.void:
        payload[VOID] = True
    return event | {
        "kind": EventKind.OUTCOME.value,
        "status": act.status.value if act.status else None,
        "error_code": act.error_code,
        "error_message": act.error_message,
        "payload": payload,
    }
