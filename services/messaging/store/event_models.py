"""The tables of what happened to messages and conversations."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.messaging.store.base import Base, RowId
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow

# Each in its database's own words, or its planner doesn't see that a query asks the same.
_NOT_JOURNALED: Mapping[str, Any] = {
    "postgresql_where": text("NOT journaled"),
    "sqlite_where": text("journaled = 0"),
}


class MessageEventRow(Base):
    """Something that happened to a message. Rows are only ever added."""

    __tablename__ = "message_events"
    __table_args__ = (
        Index("ix_message_events_transaction_id_id", "transaction_id", "id"),
        Index("ix_message_events_unjournaled", "id", **_NOT_JOURNALED),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey(MessageRow.id), index=True)
    # Natural key: the same event, delivered again, is not added again.
    event_key: Mapped[str] = mapped_column(String(255), unique=True)
    # received, queued, attempt, outcome or status
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str | None] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None] = mapped_column(Text)
    provider: Mapped[str | None] = mapped_column(String(16))
    # "reconciler" when no webhook brought it and the provider's list did.
    origin: Mapped[str | None] = mapped_column(String(16))
    occurred_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(16))
    # What the provider said, as it came.
    payload: Mapped[dict[str, Any]]
    # Filled by the database: the writing transaction's number on PostgreSQL, 0 on SQLite. Row ids
    # are handed out before the commit, so a reader who follows them alone would miss rows that
    # are committed late; one who also waits for all older transactions to end misses none.
    transaction_id: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # False while it has still to be brought into the journal: for what we did, not for what
    # the journal told us.
    journaled: Mapped[bool] = mapped_column(default=True, server_default=true())

    message: Mapped[MessageRow] = relationship(backref="events")


class ConversationEventRow(Base):
    """What was done to a conversation otherwise than by a message. Rows are only ever added."""

    __tablename__ = "conversation_events"
    __table_args__ = (Index("ix_conversation_events_unjournaled", "id", **_NOT_JOURNALED),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey(ConversationRow.id), index=True)
    # Natural key: the same event, restored again, is not added again.
    event_key: Mapped[str] = mapped_column(String(255), unique=True)
    # opened, paused, resumed or read
    kind: Mapped[str] = mapped_column(String(16))
    # Of the conversation at that time, before any merge.
    public_id: Mapped[str] = mapped_column(String(32))
    # Who paused: person or api.
    paused_by: Mapped[str | None] = mapped_column(String(16))
    # Up to which message it was read.
    message_id: Mapped[int | None] = mapped_column(ForeignKey(MessageRow.id))
    occurred_at: Mapped[datetime]
    journaled: Mapped[bool] = mapped_column(default=True, server_default=true())

    conversation: Mapped[ConversationRow] = relationship(backref="events")


class ParkedStatusRow(Base):
    """A report about a message that isn't known yet, or isn't known to be its contact's.

    It moves to `message_events` once it is.
    """

    __tablename__ = "parked_statuses"
    __table_args__ = (
        Index("ix_parked_statuses_provider_message", "provider", "provider_message_id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    event_key: Mapped[str] = mapped_column(String(255), unique=True)
    provider: Mapped[str] = mapped_column(String(16))
    provider_message_id: Mapped[str] = mapped_column(String(128))
    # Our own id of the message, where the provider handed it back.
    message_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str | None] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None] = mapped_column(Text)
    origin: Mapped[str | None] = mapped_column(String(16))
    occurred_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
