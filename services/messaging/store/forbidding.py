"""Failing messages that a rule has come to forbid since they were stored."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import Author
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ContactRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outcomes import AnyRow, record_outcome, reject
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


async def fail_forbidden(
    connection: AsyncConnection,
    rows: Sequence[AnyRow],
    providers: Mapping[int, str],
    policy: SendPolicy,
    now: datetime,
) -> list[AnyRow]:
    """Fail the messages in rows of `select_unsettled` that a rule forbids; returns the others.

    Args:
        providers: What is to send each, by the message's row.
    """
    rules = [_rule_against(row, providers[row.message_id], policy, now) for row in rows]
    judged = list(zip(rows, rules, strict=True))
    await _fail(connection, [(row, rule) for row, rule in judged if rule is not None], now)
    return [row for row, rule in judged if rule is None]


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
    await _fail(connection, [(row, OPTED_OUT) for row in rows], now)


def _rule_against(row: AnyRow, provider: str, policy: SendPolicy, now: datetime) -> str | None:
    refusal = policy.refusal(
        RecipientFacts(row.opted_out_at, row.last_inbound_at),
        is_template=row.template is not None,
        provider=provider,
        now=now,
    )
    if refusal is not None:
        return refusal.rule
    return EXPIRED if policy.is_too_old(row.created_at, now) else None


async def _fail(
    connection: AsyncConnection, forbidden: Sequence[tuple[AnyRow, str]], now: datetime
) -> None:
    # In the order in which `store.queueing` holds them: else they might wait for each other.
    for row, rule in sorted(forbidden, key=lambda one: one[0].message_id):
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
