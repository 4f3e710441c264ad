"""The tables of messages and of their files."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.messaging.store.base import Base, RowId
from services.messaging.store.contact_models import ConversationRow


class MessageRow(Base):
    """One message, in or out."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("provider", "provider_message_id"),
        # The order of lists, for each of the filters.
        Index("ix_messages_created_at_id", "created_at", "id"),
        Index("ix_messages_conversation_id_created_at_id", "conversation_id", "created_at", "id"),
        Index("ix_messages_status_created_at_id", "status", "created_at", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey(ConversationRow.id))
    direction: Mapped[str] = mapped_column(String(8))
    author: Mapped[str] = mapped_column(String(16))
    contact_address: Mapped[str] = mapped_column(String(255))
    own_address: Mapped[str] = mapped_column(String(255))
    body: Mapped[str] = mapped_column(Text)
    # Each file's url and content_type; once fetched also id and size_bytes, or problem.
    media: Mapped[list[dict[str, Any]]]
    # Of an approved template: its id and variables.
    template: Mapped[dict[str, Any] | None]
    reply_to_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    # What sends it or brought it; changes when the fallback takes over.
    provider: Mapped[str] = mapped_column(String(16))
    provider_message_id: Mapped[str | None] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None] = mapped_column(Text)
    # The caller's idempotency key, and a hash of what it asked for.
    request_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_hash: Mapped[str | None] = mapped_column(String(64))
    # Unique: an inbound message is answered automatically at most once.
    answers_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"), unique=True)
    # When the assistant was last asked for an answer to it, whatever became of that.
    asked_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    sent_source: Mapped[str | None] = mapped_column(String(16))
    delivered_at: Mapped[datetime | None]
    delivered_source: Mapped[str | None] = mapped_column(String(16))
    read_at: Mapped[datetime | None]
    read_source: Mapped[str | None] = mapped_column(String(16))
    failed_at: Mapped[datetime | None]
    failed_source: Mapped[str | None] = mapped_column(String(16))
    # The request that brought it or asked for it: what follows from it goes on under its id.
    traceparent: Mapped[str | None] = mapped_column(String(55))

    conversation: Mapped[ConversationRow] = relationship(backref="messages")
    answers: Mapped["MessageRow | None"] = relationship(
        remote_side="MessageRow.id", foreign_keys=[answers_id]
    )
    reply_to: Mapped["MessageRow | None"] = relationship(
        remote_side="MessageRow.id", foreign_keys=[reply_to_id]
    )


class MediaRow(Base):
    """A stored file, under the hash of what is in it."""

    __tablename__ = "media"

    # SHA-256, lower-case hexadecimal.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    content_type: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
