"""The tables of work that is to be done, and of who does it."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.messaging.store.base import Base
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow


class OutboxRow(Base):
    """An unsettled send. The row goes when the message is accepted or refused for good."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_state_due_at", "state", "due_at"),
        Index("ix_outbox_conversation_id_message_id", "conversation_id", "message_id"),
    )

    message_id: Mapped[int] = mapped_column(
        ForeignKey(MessageRow.id), primary_key=True, autoincrement=False
    )
    conversation_id: Mapped[int] = mapped_column(ForeignKey(ConversationRow.id))
    # due, sending or unknown; waiting behind an older message of the conversation
    state: Mapped[str] = mapped_column(String(8))
    # Its outcome was unknown once: no other provider may ever send it.
    pinned: Mapped[bool] = mapped_column(default=False, server_default=false())
    # It came from the journal without its end, so any provider may have sent it.
    restored: Mapped[bool] = mapped_column(default=False, server_default=false())
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    # While sending, or while its outcome is looked up: when another process may take over.
    lease_until: Mapped[datetime | None]
    first_attempt_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]

    message: Mapped[MessageRow] = relationship()
    conversation: Mapped[ConversationRow] = relationship()


class PendingReplyRow(Base):
    """A conversation whose newest inbound message waits for the assistant."""

    __tablename__ = "pending_replies"

    conversation_id: Mapped[int] = mapped_column(
        ForeignKey(ConversationRow.id), primary_key=True, autoincrement=False
    )
    up_to_id: Mapped[int] = mapped_column(ForeignKey(MessageRow.id))
    due_at: Mapped[datetime] = mapped_column(index=True)
    # However much the contact goes on writing, the answer is not put off beyond this.
    latest_at: Mapped[datetime]
    attempts: Mapped[int]
    lease_until: Mapped[datetime | None]

    conversation: Mapped[ConversationRow] = relationship()
    up_to: Mapped[MessageRow] = relationship()


class MediaFetchRow(Base):
    """An inbound message whose files are still to be fetched. The row goes when all is settled."""

    __tablename__ = "media_fetches"

    message_id: Mapped[int] = mapped_column(
        ForeignKey(MessageRow.id), primary_key=True, autoincrement=False
    )
    attempts: Mapped[int]
    due_at: Mapped[datetime] = mapped_column(index=True)
    lease_until: Mapped[datetime | None]

    message: Mapped[MessageRow] = relationship()


class LeaseRow(Base):
    """Work that one process does for all; another takes over when the lease has run out."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(32))
    lease_until: Mapped[datetime]
