"""Contacts and conversations as readers see them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import Message

WINDOW = timedelta(hours=24)
"""So long after a contact's message anything may be sent; afterwards only templates. (WhatsApp's
"customer service window".)"""


class PausedBy(StrEnum):
    """Why the assistant is silent in a conversation."""

    PERSON = "person"
    """A person answered."""
    API = "api"
    """It was asked for."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A person, under all names by which we know them."""

    id: str
    display_name: str
    identities: tuple[Identity, ...]
    opted_out_at: datetime | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that was said between a contact and one of our addresses.

    Attributes:
        unread_count: Messages of the contact after the last that was marked as read.
    """

    id: str
    contact: Contact
    contact_address: str
    own_address: str
    created_at: datetime
    last_message_at: datetime
    last_inbound_at: datetime | None
    unread_count: int
    assistant_paused_at: datetime | None
    assistant_paused_by: PausedBy | None
    last_message: Message | None

    @property
    def window_closes_at(self) -> datetime | None:
        """Until when anything may be sent; None when the contact never wrote."""
        return None if self.last_inbound_at is None else self.last_inbound_at + WINDOW
