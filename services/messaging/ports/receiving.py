"""What receiving needs from the store, and the values that cross."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import (
    StatusReport,
)


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """An inbound message that the assistant should answer once the contact pauses."""

    due_at: datetime
    latest_at: datetime


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """An inbound message and what follows from it.

    Attributes:
        opted_out: True or False when the message was an opt-out or opt-in word.
        reply: None when nothing automatic may answer it.
    """

    message: InboundMessage
    opted_out: bool | None
    reply: ReplyRequest | None


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What a batch changed.

    Attributes:
        stored: Messages that were new.
        applied: Reports that found their message.
        parked: Reports that wait for a message not yet known.
        unsettled: The provider's ids of messages for which reports may be parked that apply now:
            they became known by this batch, or perhaps meanwhile.
    """

    stored: int
    applied: int
    parked: int
    unsettled: frozenset[str] = frozenset()


class IngestStore(Protocol):
    """Stores what arrived, in one transaction a batch."""

    async def join(self, people: Sequence[SamePerson]) -> None:
        """Make names that are one person's one contact's; contacts that bear them are merged.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def ingest(
        self, messages: Sequence[ReceivedMessage], reports: Sequence[StatusReport]
    ) -> IngestResult:
        """Store a batch. What is known already is left as it is.

        Raises:
            UnavailableError: The database can't be reached; nothing was stored.
            ValueError: A value of the batch can't be stored; nothing was.
        """
        ...

    async def apply_parked(self, provider_message_ids: Collection[str] | None = None) -> int:
        """Apply parked reports whose message has become known; returns how many.

        Args:
            provider_message_ids: Look at reports with these ids only, which is quicker.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def drop_parked(self, before: datetime) -> int:
        """Forget parked reports from before a time; returns how many.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...
