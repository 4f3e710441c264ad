"""Failing messages that a rule has come to forbid since they were stored."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import Author
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ContactRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outcomes import record_outcome, reject
from services.messaging.store.unsettled import DUE, WAITING, claimed_send, select_unsettled
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.policy import (
    EXPIRED,
    NO_TEMPLATES,
    OPTED_OUT,
    OUTSIDE_WINDOW,
    RecipientFacts,
    SendPolicy,
)

_TOO_LATE_FOR: Final = {
    OPTED_OUT: "the contact opted out first",
    OUTSIDE_WINDOW: "it waited until WhatsApp's 24-hour window had closed",
    NO_TEMPLATES: "its provider has no templates",
    EXPIRED: "it was older than SEND_MAX_AGE_SECONDS when it could have been sent",
}


async def fail_if_forbidden(
    connection: AsyncConnection,
    row: Row[*tuple[Any, ...]],
    provider: str,
    policy: SendPolicy,
    now: datetime,
) -> bool:
    """Fail the message in a row of `select_unsettled` if a rule forbids it; whether one did.

    Args:
        provider: What is to send it.
    """
    refusal = policy.refusal(
        RecipientFacts(row.opted_out_at, row.last_inbound_at),
        is_template=row.template is not None,
        provider=provider,
        now=now,
    )
    if refusal is not None:
        await _fail(connection, row, refusal.rule, now)
    elif policy.is_too_old(row.created_at, now):
        await _fail(connection, row, EXPIRED, now)
    else:
        return False
    return True


async def cancel_automatic(
    connection: AsyncConnection, contact_ids: Collection[int], now: datetime
) -> None:
    """Fail what the assistant has waiting for contacts that opted out, in the caller's transaction.

    What is being sent at this moment is passed over: it can't be called back.
    """
    rows = await connection.execute(
        select_unsettled().where(
            OutboxRow.state.in_((DUE, WAITING)),
            MessageRow.author == Author.ASSISTANT.value,
            ContactRow.id.in_(contact_ids),
        )
    )
    for row in rows.all():
        await _fail(connection, row, OPTED_OUT, now)


async def _fail(
    connection: AsyncConnection, row: Row[*tuple[Any, ...]], rule: str, now: datetime
) -> None:
    message = claimed_send(
        row, attempt=row.attempts, first_attempt_at=now, last_attempt_at=now, lease_until=now
    )
    # The end of an attempt may be what nobody knows.
    what = "not sent again" if row.pinned else "not sent"
    outcome = SendOutcome(
        OutcomeKind.REJECTED, error_code=rule, error_message=f"{what}: {_TOO_LATE_FOR[rule]}"
    )
    await record_outcome(connection, row.message_id, message, outcome, now)
    await reject(connection, row.message_id, message, outcome, now)
