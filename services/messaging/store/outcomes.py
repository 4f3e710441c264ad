"""Writing down how a try to send ended, within the caller's transaction."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import (
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
    fold,
)
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.rows import (
    DELIVERY_COLUMNS,
    delivery_of,
    delivery_values,
    insert_ignoring,
)
from services.messaging.store.work_models import OutboxRow

log = structlog.get_logger(__name__)

VOID: Final = "void"
"""In the payload of a rejection that came too late to count."""


async def record_outcome(
    connection: AsyncConnection,
    row_id: int,
    message: ClaimedSend,
    outcome: SendOutcome,
    now: datetime,
    *,
    void: bool = False,
) -> None:
    """Add the event of an outcome; looking for a message again and again adds it once.

    Args:
        void: It is a rejection that came too late to count.
    """
    status = MessageStatus.FAILED if outcome.kind is OutcomeKind.REJECTED else outcome.status
    key = f"outcome:{message.message_id}:{message.attempt}:{outcome.kind.value}"
    await connection.execute(
        insert_ignoring(connection, MessageEventRow),
        {
            "message_id": row_id,
            "event_key": f"{key}:void" if void else key,
            "kind": "outcome",
            "status": status.value if status else None,
            "error_code": outcome.error_code,
            "error_message": outcome.error_message,
            "provider": message.provider,
            "occurred_at": now,
            "source": TimeSource.RECEIVED.value,
            "payload": {
                "attempt": message.attempt,
                "outcome": outcome.kind.value,
                **(
                    {"provider_message_id": outcome.provider_message_id}
                    if outcome.provider_message_id
                    else {}
                ),
                **({VOID: True} if void else {}),
            },
            "journaled": False,
        },
    )


async def accept(
    connection: AsyncConnection,
    row_id: int,
    message: ClaimedSend,
    outcome: SendOutcome,
    now: datetime,
) -> None:
    """Note the provider's id and take the message out of the outbox."""
    known = await connection.scalar(
        select(MessageRow.provider_message_id).where(MessageRow.id == row_id).with_for_update()
    )
    if known is None:
        await connection.execute(
            update(MessageRow)
            .where(MessageRow.id == row_id)
            .values(
                provider_message_id=outcome.provider_message_id,
                # Another one than it was with, if a replay didn't know where it had gone.
                provider=message.provider,
            )
        )
    elif known != outcome.provider_message_id:
        log.error("a message was sent twice", message_id=message.message_id)
    if outcome.status is not None:
        await _add_report(connection, row_id, _report(message, outcome, outcome.status, now))
    await leave_outbox(connection, [row_id])


async def reject(
    connection: AsyncConnection,
    row_id: int,
    message: ClaimedSend,
    outcome: SendOutcome,
    now: datetime,
) -> None:
    """Fail a message for good and take it out of the outbox."""
    await _add_report(connection, row_id, _report(message, outcome, MessageStatus.FAILED, now))
    await leave_outbox(connection, [row_id])


async def leave_outbox(connection: AsyncConnection, row_ids: Collection[int]) -> None:
    """Take settled messages out of the outbox and release what waited behind them.

    Lock the rows "for update" first: whoever stores a message waits for that, and either sees its
    predecessor gone or has its message seen here.
    """
    left = set(
        await connection.scalars(
            delete(OutboxRow)
            .where(OutboxRow.message_id.in_(row_ids))
            .returning(OutboxRow.conversation_id)
        )
    )
    if not left:
        return
    oldest = (
        select(func.min(OutboxRow.message_id))
        .where(OutboxRow.conversation_id.in_(left))
        .group_by(OutboxRow.conversation_id)
    )
    await connection.execute(
        update(OutboxRow)
        .where(OutboxRow.message_id.in_(oldest), OutboxRow.state == "waiting")
        .values(state="due")
    )


async def move(connection: AsyncConnection, row_ids: Collection[int], provider: str) -> None:
    """Give messages that were certainly never sent to another provider."""
    if row_ids:
        await connection.execute(
            update(MessageRow).where(MessageRow.id.in_(row_ids)).values(provider=provider)
        )


async def _add_report(connection: AsyncConnection, row_id: int, report: StatusReport) -> None:
    row = (
        await connection.execute(
            select(*DELIVERY_COLUMNS).where(MessageRow.id == row_id).with_for_update()
        )
    ).one()
    await connection.execute(
        update(MessageRow)
        .where(MessageRow.id == row_id)
        .values(delivery_values(fold(delivery_of(row), report)))
    )


def _report(
    message: ClaimedSend, outcome: SendOutcome, status: MessageStatus, now: datetime
) -> StatusReport:
    return StatusReport(
        event_key="",  # Not stored: the outcome's event stands for it.
        provider=message.provider,
        provider_message_id=outcome.provider_message_id or "",
        status=status,
        moment=Moment(now, TimeSource.RECEIVED),
        error_code=outcome.error_code,
        error_message=outcome.error_message,
    )
