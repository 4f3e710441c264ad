"""Requests into what the use cases and the store take."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.messaging.v1 import message_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.errors import InvalidInputError, NotFoundError
from services.messaging.domain.message import Direction, MessageStatus
from services.messaging.domain.phone import ContactAddresses
from services.messaging.ports.reading import MessageFilter

T = TypeVar("T")

_DEFAULT_PAGE = 50
_MAX_PAGE = 200

_DIRECTIONS: Mapping[int, Direction | None] = {
    message_pb2.DIRECTION_UNSPECIFIED: None,
    message_pb2.DIRECTION_INBOUND: Direction.INBOUND,
    message_pb2.DIRECTION_OUTBOUND: Direction.OUTBOUND,
}
_STATUSES: Mapping[int, MessageStatus | None] = {
    message_pb2.MESSAGE_STATUS_UNSPECIFIED: None,
    message_pb2.MESSAGE_STATUS_RECEIVED: MessageStatus.RECEIVED,
    message_pb2.MESSAGE_STATUS_QUEUED: MessageStatus.QUEUED,
    message_pb2.MESSAGE_STATUS_SENDING: MessageStatus.SENDING,
    message_pb2.MESSAGE_STATUS_SENT: MessageStatus.SENT,
    message_pb2.MESSAGE_STATUS_UNDELIVERED: MessageStatus.UNDELIVERED,
    message_pb2.MESSAGE_STATUS_FAILED: MessageStatus.FAILED,
    message_pb2.MESSAGE_STATUS_DELIVERED: MessageStatus.DELIVERED,
    message_pb2.MESSAGE_STATUS_READ: MessageStatus.READ,
}


def required_id(value: str, field: str) -> str:
    """An id that may exist.

    Raises:
        InvalidInputError: It is empty.
        NotFoundError: No id looks like this; PostgreSQL wouldn't even look for it.
    """
    if not value:
        raise InvalidInputError(field, "is empty; it is required")
    if "\0" in value:
        raise NotFoundError(f"{field}: there is nothing with this id")
    return value


def page_limit(page_size: int) -> int:
    """How many to return.

    Raises:
        InvalidInputError: It is negative.
    """
    if page_size < 0:
        raise InvalidInputError("page_size", "is negative")
    return min(page_size or _DEFAULT_PAGE, _MAX_PAGE)


def message_filter(request: pb.ListMessagesRequest, addresses: ContactAddresses) -> MessageFilter:
    """What a list of messages is about.

    Raises:
        InvalidInputError: A filter is malformed.
        NotFoundError: No conversation can have such an id.
    """
    contact = None
    if request.contact_address:
        contact = addresses.identity(request.contact_address, field="contact_address")
    conversation_id = None
    if request.conversation_id:
        conversation_id = required_id(request.conversation_id, "conversation_id")
    since = time_of(request.since, "since") if request.HasField("since") else None
    until = time_of(request.until, "until") if request.HasField("until") else None
    if since is not None and until is not None and until <= since:
        raise InvalidInputError("until", "is not after since")
    return MessageFilter(
        contact=contact,
        conversation_id=conversation_id,
        status=named(_STATUSES, request.status, "status"),
        direction=named(_DIRECTIONS, request.direction, "direction"),
        since=since,
        until=until,
    )


def question(wanted: MessageFilter) -> tuple[str, ...]:
    """What binds a page token to its filter."""
    contact = wanted.contact
    return (
        "messages",
        f"{contact.kind}:{contact.value}" if contact else "",
        wanted.conversation_id or "",
        wanted.status or "",
        wanted.direction or "",
        wanted.since.isoformat() if wanted.since else "",
        wanted.until.isoformat() if wanted.until else "",
    )


def named(names: Mapping[int, T], number: int, field: str) -> T:
    """What an enum's number means.

    Raises:
        InvalidInputError: Nothing.
    """
    # An enum's number of a later version arrives here as it is.
    if number not in names:
        raise InvalidInputError(field, "has a value that this version doesn't know")
    return names[number]


def time_of(stamp: Timestamp, field: str) -> datetime:
    """The time that came over the wire.

    Raises:
        InvalidInputError: There is no such time.
    """
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(field, "is no time between the years 1 and 9999") from error
