"""Rows into values of the domain, and back."""

import functools
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, case, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.message import (
    Author,
    Delivery,
    Direction,
    EventKind,
    Media,
    Message,
    MessageEvent,
    MessageStatus,
    Moment,
    Template,
    TimeSource,
)
from services.messaging.store.base import Base
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow

_MOMENTS = ("sent", "delivered", "read", "failed")

DELIVERY_COLUMNS = (
    MessageRow.status,
    MessageRow.error_code,
    MessageRow.error_message,
    *(getattr(MessageRow, f"{name}_{part}") for name in _MOMENTS for part in ("at", "source")),
)
"""What `delivery_of` reads."""


def _said(name: str, *kinds: EventKind) -> ColumnElement[Any]:
    """A part of the payload of such events. All of it may be long, and more than is shown."""
    said = MessageEventRow.payload[name].as_string()
    return case((MessageEventRow.kind.in_([kind.value for kind in kinds]), said))


EVENT_TEXT: Final = _said("text", EventKind.REACTION, EventKind.EDIT)
EVENT_ERROR: Final = func.coalesce(
    MessageEventRow.error_message, _said("error_message", EventKind.OUTCOME)
)


def insert_ignoring(
    connection: AsyncConnection, table: type[Base]
) -> postgresql.Insert | sqlite.Insert:
    """An insert that leaves out rows whose unique keys are taken."""
    return _insertion(connection.dialect.name, table)


@functools.cache
def _insertion(dialect: str, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def delivery_of(row: Row[*tuple[Any, ...]]) -> Delivery:
    """The delivery in a row that has `DELIVERY_COLUMNS`."""
    return Delivery(
        status=MessageStatus(row.status),
        error_code=row.error_code,
        error_message=row.error_message,
        **{name: _moment(row, name) for name in _MOMENTS},
    )


def delivery_values(delivery: Delivery) -> dict[str, Any]:
    """The values of `DELIVERY_COLUMNS` for a delivery, by column name."""
    values: dict[str, Any] = {
        "status": delivery.status.value,
        "error_code": delivery.error_code,
        "error_message": delivery.error_message,
    }
    for name in _MOMENTS:
        moment: Moment | None = getattr(delivery, name)
        values[f"{name}_at"] = moment.at if moment else None
        values[f"{name}_source"] = moment.source.value if moment else None
    return values


@functools.cache
def select_messages() -> Select[*tuple[Any, ...]]:
    """A query whose rows `message_of` reads; narrow and order it by columns of `MessageRow`."""
    # Kept: two aliases cost more to make than the question to ask.
    answered = aliased(MessageRow)
    replied_to = aliased(MessageRow)
    return (
        select(
            MessageRow.id,
            MessageRow.public_id,
            ConversationRow.public_id.label("conversation_public_id"),
            MessageRow.direction,
            MessageRow.author,
            MessageRow.contact_address,
            MessageRow.own_address,
            MessageRow.body,
            MessageRow.media,
            MessageRow.provider,
            MessageRow.provider_message_id,
            MessageRow.request_id,
            MessageRow.request_hash,
            answered.public_id.label("answers_public_id"),
            replied_to.public_id.label("reply_to_public_id"),
            MessageRow.template,
            MessageRow.created_at,
            *DELIVERY_COLUMNS,
        )
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .outerjoin(answered, answered.id == MessageRow.answers_id)
        .outerjoin(replied_to, replied_to.id == MessageRow.reply_to_id)
    )


def message_of(row: Row[*tuple[Any, ...]]) -> Message:
    """The message in a row of `select_messages`."""
    return Message(
        id=row.public_id,
        conversation_id=row.conversation_public_id,
        direction=Direction(row.direction),
        author=Author(row.author),
        contact_address=row.contact_address,
        own_address=row.own_address,
        body=row.body,
        media=tuple(Media(**one) for one in row.media),
        provider=row.provider,
        provider_message_id=row.provider_message_id,
        answers_message_id=row.answers_public_id,
        delivery=delivery_of(row),
        created_at=row.created_at,
        template=None if row.template is None else Template(**row.template),
        reply_to_message_id=row.reply_to_public_id,
    )


@functools.cache
def select_events() -> Select[*tuple[Any, ...]]:
    """A query whose rows `event_of` reads; narrow and order it by `MessageEventRow`."""
    return select(
        MessageEventRow.transaction_id,
        MessageEventRow.id,
        MessageEventRow.message_id.label("message_row_id"),
        MessageRow.public_id,
        MessageEventRow.kind,
        MessageEventRow.status,
        MessageEventRow.occurred_at,
        MessageEventRow.source,
        # Rows of the first version don't have these; the message and the payload do.
        func.coalesce(MessageEventRow.provider, MessageRow.provider).label("provider"),
        MessageEventRow.error_code,
        EVENT_ERROR.label("error_message"),
        MessageEventRow.origin,
        _said("outcome", EventKind.OUTCOME).label("outcome"),
        EVENT_TEXT.label("text"),
    ).join(MessageRow, MessageRow.id == MessageEventRow.message_id)


def event_of(row: Row[*tuple[Any, ...]]) -> MessageEvent:
    """The event in a row of `select_events`."""
    return MessageEvent(
        position=(row.transaction_id, row.id),
        message_id=row.public_id,
        kind=EventKind(row.kind),
        status=MessageStatus(row.status) if row.status else None,
        moment=Moment(row.occurred_at, TimeSource(row.source)),
        provider=row.provider,
        error_code=row.error_code,
        error_message=row.error_message,
        outcome=row.outcome,
        origin=row.origin,
        text=row.text,
    )


def _moment(row: Row[*tuple[Any, ...]], name: str) -> Moment | None:
    at = getattr(row, f"{name}_at")
    return None if at is None else Moment(at, TimeSource(getattr(row, f"{name}_source")))
