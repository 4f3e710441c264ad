"""What reading needs from the store, and the values that cross."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.messaging.domain.contact import Identity
from services.messaging.domain.conversation import Conversation
from services.messaging.domain.message import (
    Direction,
    Message,
    MessageEvent,
    MessageStatus,
)

ListPosition = tuple[datetime, int]
"""A place in a list that runs from the newest to the oldest."""

Position = tuple[int, int]
"""A place among all events, in the order in which they became visible."""


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages a list is about; None leaves a question open.

    Attributes:
        since: Created at this time or later.
        until: Created before this time.
    """

    contact: Identity | None = None
    conversation_id: str | None = None
    status: MessageStatus | None = None
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages, newest first, and where the next page starts; None on the last page.

    There may be fewer than were asked for, where their texts are long. So with other pages.
    """

    messages: tuple[Message, ...]
    following: ListPosition | None


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """Conversations, newest first, and where the next page starts; None on the last page."""

    conversations: tuple[Conversation, ...]
    following: ListPosition | None


@dataclass(frozen=True, slots=True)
class Change:
    """An event and its message as it stands now."""

    event: MessageEvent
    message: Message


@dataclass(frozen=True, slots=True)
class ChangePage:
    """What happened after a position.

    Attributes:
        position: Where to go on; moves also when nothing fits the filter.
        is_last: Whether there was nothing more at the time.
    """

    changes: tuple[Change, ...]
    position: Position
    is_last: bool


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """How many messages, conversations and reports wait for what.

    Attributes:
        oldest_unsettled_at: When the oldest unsettled message was stored.
        first_due_at: When the first of them was due. That may be to come: a message that its
            contact's pace holds back isn't due, one that waits behind another may be.
    """

    due: int
    sending: int
    unknown: int
    replies: int
    parked: int
    oldest_unsettled_at: datetime | None
    first_due_at: datetime | None


class MessageReader(Protocol):
    """Answers questions about stored messages."""

    async def message(self, message_id: str) -> Message | None:
        """One message by our id."""
        ...

    async def history(self, message_id: str) -> Sequence[MessageEvent]:
        """The newest of what happened to a message, as much as a page holds, oldest first."""
        ...

    async def messages(
        self, wanted: MessageFilter, *, limit: int, after: ListPosition | None
    ) -> MessagePage:
        """A page of messages, from newest to oldest, that follow a position.

        Raises:
            NotFoundError: There is no such conversation.
        """
        ...

    async def queue_sizes(self) -> QueueSizes:
        """How much waits at this moment."""
        ...


class ConversationStore(Protocol):
    """Conversations, and what people do with them."""

    async def conversations(self, *, limit: int, after: ListPosition | None) -> ConversationPage:
        """A page of conversations that follow a position, newest message first."""
        ...

    async def conversation(self, conversation_id: str) -> Conversation:
        """One conversation by its id, or one that it had before.

        Raises:
            NotFoundError: There is none.
        """
        ...

    async def conversation_with(self, contact: Identity) -> Conversation:
        """The conversation with a contact; of several the one with the newest message.

        Raises:
            NotFoundError: There is none.
        """
        ...

    async def mark_read(self, conversation_id: str, up_to: str | None) -> Conversation:
        """Note that messages were read, up to one of them or all; never takes that back.

        Raises:
            NotFoundError: There is no such conversation.
            InvalidInputError: `up_to` is no message of this conversation.
        """
        ...

    async def pause_assistant(self, conversation_id: str) -> Conversation:
        """Silence the assistant, also for what waits for its answer.

        Raises:
            NotFoundError: There is no such conversation.
        """
        ...

    async def resume_assistant(self, conversation_id: str) -> Conversation:
        """Let the assistant answer again, from the contact's next message on.

        Raises:
            NotFoundError: There is no such conversation.
        """
        ...


class ChangeReader(Protocol):
    """The events of all messages as one sequence to which things are only added."""

    async def adopt(self) -> int:
        """Take in events that another database has numbered, after a restore; returns how many."""
        ...

    async def end(self) -> Position:
        """The place after which everything is that isn't visible yet."""
        ...

    async def newest(self) -> Position | None:
        """The place of the newest event that `after` hands out; None when there is none."""
        ...

    async def after(
        self, position: Position, *, limit: int, contact: Identity | None
    ) -> ChangePage:
        """What happened after a position, oldest first; looks at no more than `limit` events.

        Raises:
            InvalidInputError: The position lies beyond everything: it is another database's.
        """
        ...
