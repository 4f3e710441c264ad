"""The tables of contacts and conversations."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.messaging.store.base import Base, RowId


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

    contact: Mapped[ContactRow] = relationship(backref="identities")


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

    contact: Mapped[ContactRow] = relationship(backref="conversations")


class ConversationAliasRow(Base):
    """A conversation's earlier id, from before it was merged into another."""

    __tablename__ = "conversation_aliases"

    public_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"), index=True)

    conversation: Mapped[ConversationRow] = relationship(backref="aliases")
