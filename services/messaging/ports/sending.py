"""What sending needs from the store and from providers, and the values that cross."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Protocol

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import (
    Author,
    Media,
    Message,
    MessageStatus,
    Template,
)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored for sending.

    Attributes:
        body: "" for a template, whose text only the provider knows, and for media alone.
        provider: What sends it, unless that is unavailable and another one takes over.
        reply_to_message_id: Our id of the message of the same conversation that it replies to.
        traceparent: The request that it comes from.
    """

    recipient: Identity
    contact_address: str
    own_address: str
    provider: str
    author: Author
    body: str
    media: tuple[Media, ...] = ()
    template: Template | None = None
    reply_to_message_id: str | None = None
    request_id: str | None = None
    request_hash: str | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class RepliedTo:
    """The message that another one replies to."""

    provider: str
    provider_message_id: str
    from_us: bool
    body: str


@dataclass(frozen=True, slots=True)
class ClaimedSend:
    """A message that this process may send now, until its lease ends.

    Attributes:
        attempt: Number of this attempt, from 1.
        first_attempt_at: When sending it was first tried; the start of any search for it.
        last_attempt_at: When this attempt began.
        lease_until: When another process may take over. It also tells this claim from others.
        restored: It came from the journal without its end: any provider may have sent it.
        replied_to: None also when no provider knows that message.
        traceparent: The request that it comes from; "" where that isn't known.
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
    media_urls: tuple[str, ...] = ()
    template: Template | None = None
    replied_to: RepliedTo | None = None
    restored: bool = False
    traceparent: str = ""


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
    """Sends messages, and can tell afterwards what it sent.

    Attributes:
        absorbs_repeats: A message that is sent again is received once. An unknown outcome is
            then no reason to ask: it is tried again, by this provider alone.
    """

    name: str
    absorbs_repeats: bool

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


@dataclass(frozen=True, slots=True)
class Routes:
    """Which providers take messages now.

    Attributes:
        closed: These get none.
        instead: What is due for one of them goes to another, by names. Only messages that were
            certainly never sent go elsewhere; one whose outcome was ever unknown stays.
    """

    closed: frozenset[str] = frozenset()
    instead: Mapping[str, str] = field(default_factory=dict)


ALL_OPEN: Final = Routes()


class OutboxStore(Protocol):
    """The table of unsettled sends. At most one of a conversation is under way at a time."""

    async def enqueue(self, message: NewMessage) -> tuple[Message, bool]:
        """Store a message and its place in the outbox in one transaction.

        A person's message silences the assistant in the conversation.

        Returns the message and whether it is new; with a known `request_id` it is the one
        stored first.

        Raises:
            IdempotencyConflictError: The `request_id` stands for another request.
            InvalidInputError: `reply_to_message_id` is no message of the conversation.
            PolicyRefusedError: A rule forbids the message.
        """
        ...

    async def stored_before(self, message: NewMessage) -> Message | None:
        """The message stored first for this request; None: it is new, or has no `request_id`.

        Raises:
            IdempotencyConflictError: The `request_id` stands for another request.
        """
        ...

    async def claim(
        self, *, limit: int, lease: timedelta, routes: Routes = ALL_OPEN
    ) -> Sequence[ClaimedSend]:
        """Take messages that are due, the oldest of each conversation, and record the attempt.

        A message that a rule has come to forbid meanwhile is failed instead.
        """
        ...

    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> bool:
        """Record how an attempt ended. `retry_at` is used by RETRY and UNKNOWN.

        ACCEPTED always counts. REJECTED and RETRY count only while this claim holds, for
        afterwards someone else may have sent the message.

        Args:
            move_to: The provider that is to try at once after a RETRY, unless the outcome of an
                earlier attempt was unknown.

        Returns whether something may be due at once: this message, or one that waited behind it.
        """
        ...

    async def release_stranded(self) -> int:
        """Make due what waits behind nothing any more; returns how many.

        Nothing should: settling a message releases the next of its conversation.
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
