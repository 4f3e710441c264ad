"""Messages and how reports about them add up, whatever order they arrive in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Direction(StrEnum):
    """Whether a message came from a contact or goes to one."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class MessageStatus(StrEnum):
    """Where a message stands.

    Of several reports the one with the highest rank holds. Delivered outranks failed because a
    phone that shows the message settles the matter, whatever a late error says.
    """

    RECEIVED = "received"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"

    @property
    def rank(self) -> int:
        """Position in the order of progress."""
        return _RANKS[self]

    @property
    def is_failure(self) -> bool:
        """Whether the message did not arrive."""
        return self in (MessageStatus.FAILED, MessageStatus.UNDELIVERED)


_RANKS = {status: rank for rank, status in enumerate(MessageStatus)}


class TimeSource(StrEnum):
    """Whose clock a time comes from."""

    PROVIDER = "provider"
    RECEIVED = "received"


class Author(StrEnum):
    """Who wrote a message."""

    CONTACT = "contact"
    ASSISTANT = "assistant"
    PERSON = "person"
    API = "api"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time and whose clock measured it."""

    at: datetime
    source: TimeSource

    def precedence(self) -> tuple[bool, datetime]:
        """Sort key: a provider's clock before ours, then the earlier."""
        return (self.source is not TimeSource.PROVIDER, self.at)


@dataclass(frozen=True, slots=True)
class Media:
    """A file of a message.

    Attributes:
        url: Where the provider has it, or where it takes it from.
        id: Names the stored copy; None until it was fetched, and for what goes out.
        size_bytes: Of the stored copy.
        problem: Why there is no stored copy, when there will be none.
    """

    url: str
    content_type: str
    id: str | None = None
    size_bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A message approved beforehand, by the provider's id, with what goes into its gaps."""

    id: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is known of an outbound message's way. Folding reports into it commutes."""

    status: MessageStatus
    sent: Moment | None = None
    delivered: Moment | None = None
    read: Moment | None = None
    failed: Moment | None = None
    error_code: str | None = None
    error_message: str | None = None


class EventKind(StrEnum):
    """What may happen to a message."""

    RECEIVED = "received"
    QUEUED = "queued"
    ATTEMPT = "attempt"
    OUTCOME = "outcome"
    STATUS = "status"
    REACTION = "reaction"
    EDIT = "edit"
    DELETION = "deletion"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """One report of a provider about one message.

    Attributes:
        event_key: The event's natural key; the same report always has the same.
        status: None when the provider used a word that we don't know; kept, but without effect.
        message_id: Our own id, where the provider hands it back. It lets a report find its
            message even when the call that sent it never returned.
        payload: The provider's parameters as they came.
        origin: "" when a webhook brought it, "reconciler" when the provider's list did.
        kind: STATUS, or what somebody did to the message: REACTION, EDIT or DELETION.
        text: Of a reaction its emoji, "" when it was taken back; of an edit the new text.
        by_us: The owner did it, not the contact.
        contact: Values of identities of the contact in whose chat it was done: it is about a
            message of that contact's conversation, or about none. () where none is named.
    """

    event_key: str
    provider: str
    provider_message_id: str
    status: MessageStatus | None
    moment: Moment
    message_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    payload: Mapping[str, object] = field(default_factory=dict)
    origin: str = ""
    kind: EventKind = EventKind.STATUS
    text: str | None = None
    by_us: bool = False
    contact: tuple[str, ...] = ()


def fold(delivery: Delivery, report: StatusReport) -> Delivery:
    """Add a report. The result is the same in whatever order reports are added."""
    status = report.status
    if status is None:
        return delivery
    highest = max(delivery.status, status, key=lambda one: one.rank)
    code, message = delivery.error_code, delivery.error_message
    if status.is_failure:
        reported = (report.error_code, report.error_message)
        # Two failures may carry different errors: a fixed order decides, not the arrival.
        known = (code, message)
        code, message = max(known, reported, key=lambda pair: (pair[0] or "", pair[1] or ""))
    if not highest.is_failure:
        code = message = None
    return Delivery(
        status=highest,
        sent=_earliest(delivery.sent, report, status is MessageStatus.SENT),
        delivered=_earliest(delivery.delivered, report, status is MessageStatus.DELIVERED),
        read=_earliest(delivery.read, report, status is MessageStatus.READ),
        failed=_earliest(delivery.failed, report, status.is_failure),
        error_code=code,
        error_message=message,
    )


def _earliest(known: Moment | None, report: StatusReport, concerned: bool) -> Moment | None:
    if not concerned:
        return known
    return report.moment if known is None else min(known, report.moment, key=Moment.precedence)


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message as readers see it."""

    id: str
    conversation_id: str
    direction: Direction
    author: Author
    contact_address: str
    own_address: str
    body: str
    media: tuple[Media, ...]
    provider: str
    provider_message_id: str | None
    answers_message_id: str | None
    delivery: Delivery
    created_at: datetime
    template: Template | None = None
    reply_to_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """Something that happened to a message.

    Attributes:
        position: Its place among all events, in the order in which they became visible.
        status: None when the event says nothing about it, or in a word that we don't know.
        outcome: For outcomes: accepted, rejected, retry or unknown.
        origin: "reconciler" when no webhook brought it and the provider's list did.
        text: Of a reaction its emoji, "" when it was taken back; of an edit the new text.
    """

    position: tuple[int, int]
    message_id: str
    kind: EventKind
    status: MessageStatus | None
    moment: Moment
    provider: str
    error_code: str | None = None
    error_message: str | None = None
    outcome: str | None = None
    origin: str | None = None
    text: str | None = None
