"""Reading the outbox: the states of unsettled sends, and what is needed to send one."""

import functools
from typing import Any, Final

from sqlalchemy import Row, ScalarSelect, Select, func, select
from sqlalchemy.orm import aliased

from services.messaging.domain.message import Direction, Template
from services.messaging.ports.sending import ClaimedSend, RepliedTo
from services.messaging.store.contact_models import ContactRow, ConversationRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.work_models import OutboxRow

DUE: Final = "due"
SENDING: Final = "sending"
UNKNOWN: Final = "unknown"
WAITING: Final = "waiting"


@functools.cache
def select_unsettled() -> Select[*tuple[Any, ...]]:
    """Unsettled sends, locked; those that another process has locked are passed over."""
    replied_to = aliased(MessageRow)
    return (
        select(
            OutboxRow.message_id,
            OutboxRow.attempts,
            OutboxRow.first_attempt_at,
            OutboxRow.last_attempt_at,
            OutboxRow.pinned,
            OutboxRow.restored,
            MessageRow.public_id,
            MessageRow.provider,
            MessageRow.contact_address,
            MessageRow.own_address,
            MessageRow.body,
            MessageRow.media,
            MessageRow.template,
            MessageRow.traceparent,
            MessageRow.created_at,
            ConversationRow.last_inbound_at,
            ContactRow.opted_out_at,
            replied_to.provider.label("replied_to_provider"),
            replied_to.provider_message_id.label("replied_to_id"),
            replied_to.direction.label("replied_to_direction"),
            replied_to.body.label("replied_to_body"),
        )
        .join(MessageRow, MessageRow.id == OutboxRow.message_id)
        .join(ConversationRow, ConversationRow.id == OutboxRow.conversation_id)
        .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
        .outerjoin(replied_to, replied_to.id == MessageRow.reply_to_id)
        .order_by(OutboxRow.due_at, OutboxRow.message_id)
        .with_for_update(skip_locked=True, key_share=True, of=[OutboxRow, MessageRow])
    )


def claimed_send(
    row: Row[*tuple[Any, ...]], provider: str | None = None, **values: Any
) -> ClaimedSend:
    """The send in a row of `select_unsettled`.

    Args:
        provider: What is to send it, if another one takes over.
        values: The attempt and its times, which a claim is about to change.
    """
    return ClaimedSend(
        message_id=row.public_id,
        provider=provider or row.provider,
        contact_address=row.contact_address,
        own_address=row.own_address,
        body=row.body,
        media_urls=tuple(one["url"] for one in row.media),
        template=Template(**row.template) if row.template else None,
        restored=row.restored,
        traceparent=row.traceparent or "",
        replied_to=_replied_to(row),
        **values,
    )


def _replied_to(row: Row[*tuple[Any, ...]]) -> RepliedTo | None:
    if row.replied_to_id is None:
        return None
    return RepliedTo(
        provider=row.replied_to_provider,
        provider_message_id=row.replied_to_id,
        from_us=row.replied_to_direction == Direction.OUTBOUND.value,
        body=row.replied_to_body,
    )


@functools.cache
def oldest_of_its_conversation() -> ScalarSelect[int]:
    """The oldest unsettled message beside the row of the outbox that is looked at.

    A scalar, not "no older one exists", for which PostgreSQL may read the whole table.
    """
    other = aliased(OutboxRow)
    return (
        select(func.min(other.message_id))
        .where(other.conversation_id == OutboxRow.conversation_id)
        .correlate(OutboxRow)
        .scalar_subquery()
    )
