"""Writing down how a try to send ended, within the caller's transaction."""

import functools
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import Row, Update, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningDelete

from services.messaging.domain.message import (
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
    fold,
)
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.store.bulk import among
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

AnyRow = Row[*tuple[Any, ...]]

VOID: Final = "void"
"""In the payload of a rejection that came too late to count."""

_ROW_ID: Final = "row_id"


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
    found: AnyRow,
    message: ClaimedSend,
    outcome: SendOutcome,
    now: datetime,
) -> bool:
    """Note the provider's id and take the message out of the outbox, as `leave_outbox` says.

    Args:
        found: The message, locked, with its `provider_message_id` and `DELIVERY_COLUMNS`.
    """
    changes: dict[str, Any] = {}
    if found.provider_message_id is None:
        # Another provider than it was with, if a replay didn't know where it had gone.
        changes = {
            "provider_message_id": outcome.provider_message_id,
            "provider": message.provider,
        }
    elif found.provider_message_id != outcome.provider_message_id:
        log.error("a message was sent twice", message_id=message.message_id)
    if outcome.status is not None:
        changes |= _reported(found, _report(message, outcome, outcome.status, now))
    if changes:
        await connection.execute(_of_message(), {_ROW_ID: found.id, **changes})
    return await leave_outbox(connection, [found.id])


async def reject(
    connection: AsyncConnection,
    row_id: int,
    message: ClaimedSend,
    outcome: SendOutcome,
    now: datetime,
) -> bool:
    """Fail a message for good and take it out of the outbox, as `leave_outbox` says."""
    found = (
        await connection.execute(
            select(*DELIVERY_COLUMNS).where(MessageRow.id == row_id).with_for_update()
        )
    ).one()
    failed = _reported(found, _report(message, outcome, MessageStatus.FAILED, now))
    await connection.execute(_of_message(), {_ROW_ID: row_id, **failed})
    return await leave_outbox(connection, [row_id])


async def leave_outbox(connection: AsyncConnection, row_ids: Sequence[int]) -> bool:
    """Take settled messages out of the outbox; returns whether anything waited behind them.

    That is released.

    Lock the rows "for update" first: whoever stores a message waits for that, and either sees its
    predecessor gone or has its message seen here.
    """
    dialect = connection.dialect.name
    left = await connection.scalars(_leaving(dialect), {"row_ids": row_ids})
    conversation_ids = sorted(set(left))
    if not conversation_ids:
        return False
    released = await connection.execute(_releasing(dialect), {"conversation_ids": conversation_ids})
    return released.rowcount > 0


@functools.cache
def _of_message() -> Update:
    """Sets whatever columns are given."""
    return update(MessageRow).where(MessageRow.id == bindparam(_ROW_ID))


@functools.cache
def _leaving(dialect: str) -> ReturningDelete[int]:
    return (
        delete(OutboxRow)
        .where(among(dialect, OutboxRow.message_id, "row_ids"))
        .returning(OutboxRow.conversation_id)
    )


@functools.cache
def _releasing(dialect: str) -> Update:
    oldest = (
        select(func.min(OutboxRow.message_id))
        .where(among(dialect, OutboxRow.conversation_id, "conversation_ids"))
        .group_by(OutboxRow.conversation_id)
    )
    return (
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


def _reported(row: AnyRow, report: StatusReport) -> dict[str, Any]:
    """What a report makes of a row that has `DELIVERY_COLUMNS`."""
    return delivery_values(fold(delivery_of(row), report))


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
