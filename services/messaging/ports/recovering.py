"""What finding lost webhooks needs, and the values that cross."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.common.journal.events import EventKind
from services.messaging.domain.message import MessageStatus


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """Something that happened, as the provider's list of messages shows it.

    Attributes:
        key: The natural key that its webhook has.
        status: Where an outbound message stands, in a word that we know; None for inbound ones.
        at: When it happened, by the provider's clock.
        parameters: As its webhook names them.
        has_media: Whether `EventHistory.media` has more parameters.
    """

    kind: EventKind
    key: str
    provider_message_id: str
    status: MessageStatus | None
    at: datetime
    parameters: tuple[tuple[str, str], ...]
    has_media: bool = False


class EventHistory(Protocol):
    """A provider's list of messages."""

    name: str

    def received(self, since: datetime) -> AsyncIterator[Sequence[ListedEvent]]:
        """Inbound messages since a time, newest first, in pages.

        Raises:
            UnavailableError: The provider didn't answer.
        """
        ...

    def reported(self, since: datetime) -> AsyncIterator[Sequence[ListedEvent]]:
        """Where outbound messages stand that were made since a time, newest first, in pages.

        Raises:
            UnavailableError: The provider didn't answer.
        """
        ...

    async def media(self, event: ListedEvent) -> Sequence[tuple[str, str]]:
        """The parameters that name a message's files.

        Raises:
            UnavailableError: The provider didn't answer.
        """
        ...


class KnownMessages(Protocol):
    """What the store has."""

    async def statuses(self, provider: str, ids: Collection[str]) -> Mapping[str, MessageStatus]:
        """Where messages stand, by the provider's id; those not stored are left out.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...


class EventJournal(Protocol):
    """The journal that webhooks go through."""

    async def caught_up(self) -> bool:
        """Wait until all that stands in the journal now is handled; False when it takes too long.

        Raises:
            UnavailableError: The journal doesn't answer.
        """
        ...

    async def add(
        self,
        provider: str,
        event: ListedEvent,
        parameters: Sequence[tuple[str, str]],
        received_at: datetime,
    ) -> None:
        """Journal an event as if its webhook had come, with its origin marked.

        Raises:
            UnavailableError: The journal doesn't answer.
        """
        ...
