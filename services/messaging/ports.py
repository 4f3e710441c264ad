"""What the use cases need from the outside, and the values that cross."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from services.messaging.domain.contact import Identity, InboundMessage
from services.messaging.domain.message import (
    Author,
    Direction,
    Message,
    MessageStatus,
    StatusReport,
)


class Clock(Protocol):
    """The time now; aware, UTC."""

    def __call__(self) -> datetime: ...


# Receiving


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
    """

    stored: int
    applied: int
    parked: int


class IngestStore(Protocol):
    """Stores what arrived, in one transaction a batch."""

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


# Sending


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored for sending."""

    recipient: Identity
    contact_address: str
    own_address: str
    provider: str
    author: Author
    body: str
    request_id: str | None = None
    request_hash: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedSend:
    """A message that this process may send now, until its lease ends.

    Attributes:
        attempt: Number of this attempt, from 1.
        first_attempt_at: When sending it was first tried; the start of any search for it.
        last_attempt_at: When this attempt began.
        lease_until: When another process may take over. It also tells this claim from others.
    """

    message_id: str
    provider: str
    contact_address: str
    own_address: str
    body: str
    attempt: int
    first_attempt_at: datetime
    last_attempt_at: datetime
    lease_until: datetime


class OutcomeKind(Enum):
    """How a try to send ended."""

    ACCEPTED = "accepted"
    """The provider has it."""
    REJECTED = "rejected"
    """The provider refuses it for good."""
    RETRY = "retry"
    """It is certain that nothing was sent."""
    UNKNOWN = "unknown"
    """It may or may not have been sent: ask the provider before anything else."""


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """How a try to send ended, with what the provider said.

    Attributes:
        status: Where an accepted message stands already, when the provider said so.
        retry_after: How long the provider asked us to wait.
    """

    kind: OutcomeKind
    provider_message_id: str | None = None
    status: MessageStatus | None = None
    error_code: str | None = None
    error_message: str | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ProviderMessage:
    """An outbound message as the provider lists it."""

    provider_message_id: str
    body: str
    created_at: datetime
    status: MessageStatus | None
    error_code: str | None = None
    error_message: str | None = None


class Provider(Protocol):
    """Sends messages, and can tell afterwards what it sent."""

    name: str

    async def send(self, message: ClaimedSend) -> SendOutcome:
        """Try once. Never raises for a failure of the provider: that is an outcome."""
        ...

    async def sent_messages(
        self, *, contact_address: str, own_address: str, since: datetime
    ) -> Sequence[ProviderMessage]:
        """Everything sent to one contact since a time, oldest first.

        Raises:
            UnavailableError: The provider didn't answer, so nothing is known.
        """
        ...


class OutboxStore(Protocol):
    """The table of unsettled sends. At most one of a conversation is under way at a time."""

    async def enqueue(self, message: NewMessage) -> tuple[Message, bool]:
        """Store a message and its place in the outbox in one transaction.

        Returns the message and whether it is new; with a known `request_id` it is the one
        stored first.

        Raises:
            IdempotencyConflictError: The `request_id` stands for another request.
            PolicyRefusedError: The contact has opted out.
        """
        ...

    async def claim(self, *, limit: int, lease: timedelta) -> Sequence[ClaimedSend]:
        """Take messages that are due, the oldest of each conversation, and record the attempt."""
        ...

    async def settle(self, message: ClaimedSend, outcome: SendOutcome, retry_at: datetime) -> None:
        """Record how an attempt ended. `retry_at` is used by RETRY and UNKNOWN.

        ACCEPTED always counts. REJECTED and RETRY count only while this claim holds, for
        afterwards someone else may have sent the message.
        """
        ...

    async def expire_leases(self) -> int:
        """Make UNKNOWN what was being sent by a process that is gone; returns how many."""
        ...

    async def unknown(self, *, limit: int, lease: timedelta) -> Sequence[ClaimedSend]:
        """Take sends whose outcome is unknown and whose time to look has come."""
        ...

    async def known_provider_ids(self, provider: str, ids: Sequence[str]) -> frozenset[str]:
        """Those of the given provider ids that belong to a message of ours."""
        ...


# Answering


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation as the assistant sees it."""

    direction: Direction
    body: str


@dataclass(frozen=True, slots=True)
class ReplyTask:
    """A conversation that waits for an answer.

    Attributes:
        up_to: Position of the newest inbound message the answer takes into account.
        turns: The conversation so far, oldest first.
        attempt: Number of this attempt, from 1.
    """

    conversation_id: int
    up_to: int
    turns: tuple[Turn, ...]
    recipient: Identity
    contact_address: str
    own_address: str
    attempt: int


class Assistant(Protocol):
    """Writes answers."""

    async def answer(self, turns: Sequence[Turn]) -> str:
        """The answer to the conversation so far; "" for none.

        Raises:
            UnavailableError: No answer now; asking again later may work.
            InvalidInputError: No answer to this conversation, ever.
        """
        ...


class ReplyStore(Protocol):
    """The table of conversations that wait for an answer."""

    async def claim_replies(
        self, *, limit: int, lease: timedelta, context: int
    ) -> Sequence[ReplyTask]:
        """Take conversations whose time has come, each with its last `context` messages."""
        ...

    async def answer(self, task: ReplyTask, message: NewMessage) -> Message | None:
        """Store the answer for sending and end the task, in one transaction.

        Returns None, and stores nothing, when the contact has written again, has opted out, or
        the message was answered before.
        """
        ...

    async def give_back(self, task: ReplyTask, due_at: datetime) -> None:
        """Try again at `due_at`, unless the contact's next message comes first."""
        ...

    async def drop(self, task: ReplyTask) -> None:
        """End a task without an answer: a person has to take over."""
        ...


# Reading


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
