"""What reading needs from the store."""

from dataclasses import dataclass
from typing import Protocol

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import (
    Message,
)


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages, newest first, and where the next page starts; None on the last page."""

    messages: tuple[Message, ...]
    next_before: int | None


class MessageReader(Protocol):
    """Answers questions about stored messages."""

    async def message(self, message_id: str) -> Message | None:
        """One message by our id."""
        ...

    async def messages(
        self, *, limit: int, before: int | None, contact: Identity | None
    ) -> MessagePage:
        """A page of messages older than the position `before`."""
        ...
