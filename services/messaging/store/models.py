"""The tables. Both databases are migrated from these models.

A transaction that locks rows of several tables locks contacts first, then conversations, pending
replies, outbox, messages, and within a table by ascending id: so two of them can't wait for each
other. Whoever takes pending replies that are due passes over those that are locked. Before all of
these, whoever finds a conversation by its contact holds the contact `FOR KEY SHARE`; whoever merges
contacts holds them `FOR UPDATE`, so nobody else adds to them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite keeps no offset, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without an offset")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite counts rows up only for a column of exactly this type.
RowId = BigInteger().with_variant(Integer(), "sqlite")
Document = JSON().with_variant(postgresql.JSONB(), "postgresql")


class Base(DeclarativeBase):
    """Fixed names for constraints, so that migrations can refer to them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this class attribute as it is.
        datetime: UtcDateTime(),
        dict[str, Any]: Document,
        list[dict[str, Any]]: Document,
    }


# Each in its database's own words, or its planner doesn't see that a query asks the same.
_NOT_JOURNALED: Mapping[str, Any] = {
    "postgresql_where": text("NOT journaled"),
    "sqlite_where": text("journaled = 0"),
}


class ContactRow(Base):
    """A person who writes to the business or is written to."""

    __tablename__ = "contacts"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    display_name: Mapped[str] = mapped_column(Text, default="")
    # Time of the message that the name came with: an older message doesn't change it.
    named_at: Mapped[datetime | None]
    # Set while the contact is opted out; follows from the two times below it.
    opted_out_at: Mapped[datetime | None]
    last_opt_out_at: Mapped[datetime | None]
    last_opt_in_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    identities: Mapped[list["IdentityRow"]] = relationship(back_populates="contact")
    conversations: Mapped[list["ConversationRow"]] = relationship(back_populates="contact")


class IdentityRow(Base):
    """A name by which a contact is known."""

    __tablename__ = "contact_identities"
    __table_args__ = (UniqueConstraint("kind", "value"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    value: Mapped[str] = mapped_column(String(255))
    # Of a user name: time of the newest message that bore it. It passes from person to person.
    named_at: Mapped[datetime | None]

    contact: Mapped[ContactRow] = relationship(back_populates="identities")


class ConversationRow(Base):
    """All that was said between a contact and one of our addresses, whatever the provider."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("contact_id", "own_address"),
        # The order of the list of conversations.
        Index("ix_conversations_last_message_at_id", "last_message_at", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id"))
    own_address: Mapped[str] = mapped_column(String(255))
    # Where the contact was last reached or wrote from.
    contact_address: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]
    last_message_at: Mapped[datetime]
    # Opens WhatsApp's 24-hour window.
    last_inbound_at: Mapped[datetime | None]
    # Inbound messages beyond the newest one that the business has read.
    unread_count: Mapped[int] = mapped_column(default=0, server_default="0")
    read_up_to_id: Mapped[int | None] = mapped_column(BigInteger)
    # The recipient's pace: until then its share of messages is used up.
    paced_until: Mapped[datetime | None]
    assistant_paused_at: Mapped[datetime | None]
    # person or api
    assistant_paused_by: Mapped[str | None] = mapped_column(String(16))

    contact: Mapped[ContactRow] = relationship(back_populates="conversations")
    messages: Mapped[list["MessageRow"]] = relationship(back_populates="conversation")


class ConversationAliasRow(Base):
    """A conversation's earlier id, from before it was merged into another."""

    __tablename__ = "conversation_aliases"

    public_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"), index=True)


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
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
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

    conversation: Mapped[ConversationRow] = relationship(back_populates="messages")
    answers: Mapped["MessageRow | None"] = relationship(
        remote_side="MessageRow.id", foreign_keys=[answers_id]
    )
    reply_to: Mapped["MessageRow | None"] = relationship(
        remote_side="MessageRow.id", foreign_keys=[reply_to_id]
    )
    events: Mapped[list["MessageEventRow"]] = relationship(back_populates="message")


class MessageEventRow(Base):
    """Something that happened to a message. Rows are only ever added."""

    __tablename__ = "message_events"
    __table_args__ = (
        Index("ix_message_events_transaction_id_id", "transaction_id", "id"),
        Index("ix_message_events_unjournaled", "id", **_NOT_JOURNALED),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"), index=True)
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

    message: Mapped[MessageRow] = relationship(back_populates="events")


class ConversationEventRow(Base):
    """What was done to a conversation otherwise than by a message. Rows are only ever added."""

    __tablename__ = "conversation_events"
    __table_args__ = (Index("ix_conversation_events_unjournaled", "id", **_NOT_JOURNALED),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"), index=True)
    # Natural key: the same event, restored again, is not added again.
    event_key: Mapped[str] = mapped_column(String(255), unique=True)
    # opened, paused, resumed or read
    kind: Mapped[str] = mapped_column(String(16))
    # Of the conversation at that time, before any merge.
    public_id: Mapped[str] = mapped_column(String(32))
    # Who paused: person or api.
    paused_by: Mapped[str | None] = mapped_column(String(16))
    # Up to which message it was read.
    message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    occurred_at: Mapped[datetime]
    journaled: Mapped[bool] = mapped_column(default=True, server_default=true())

    conversation: Mapped[ConversationRow] = relationship()


class ParkedStatusRow(Base):
    """A report about a message that isn't known yet; it moves to `message_events` once it is."""

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


class OutboxRow(Base):
    """An unsettled send. The row goes when the message is accepted or refused for good."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_state_due_at", "state", "due_at"),
        Index("ix_outbox_conversation_id_message_id", "conversation_id", "message_id"),
    )

    message_id: Mapped[int] = mapped_column(
        ForeignKey("messages.id"), primary_key=True, autoincrement=False
    )
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
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


class PendingReplyRow(Base):
    """A conversation whose newest inbound message waits for the assistant."""

    __tablename__ = "pending_replies"

    conversation_id: Mapped[int] = mapped_column(
        ForeignKey("conversations.id"), primary_key=True, autoincrement=False
    )
    up_to_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))
    due_at: Mapped[datetime] = mapped_column(index=True)
    # However much the contact goes on writing, the answer is not put off beyond this.
    latest_at: Mapped[datetime]
    attempts: Mapped[int]
    lease_until: Mapped[datetime | None]

    conversation: Mapped[ConversationRow] = relationship()


class MediaRow(Base):
    """A stored file, under the hash of what is in it."""

    __tablename__ = "media"

    # SHA-256, lower-case hexadecimal.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    content_type: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class MediaFetchRow(Base):
    """An inbound message whose files are still to be fetched. The row goes when all is settled."""

    __tablename__ = "media_fetches"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("messages.id"), primary_key=True, autoincrement=False
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
