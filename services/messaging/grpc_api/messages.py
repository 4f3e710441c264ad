"""Messages between the domain and `switchboard.messaging.v1`."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.messaging.v1 import message_pb2 as pb

from services.messaging.domain.message import (
    Direction,
    Message,
    MessageStatus,
    Moment,
    TimeSource,
)

_DIRECTIONS = {
    Direction.INBOUND: pb.DIRECTION_INBOUND,
    Direction.OUTBOUND: pb.DIRECTION_OUTBOUND,
}
_STATUSES = {
    MessageStatus.RECEIVED: pb.MESSAGE_STATUS_RECEIVED,
    MessageStatus.QUEUED: pb.MESSAGE_STATUS_QUEUED,
    MessageStatus.SENDING: pb.MESSAGE_STATUS_SENDING,
    MessageStatus.SENT: pb.MESSAGE_STATUS_SENT,
    MessageStatus.UNDELIVERED: pb.MESSAGE_STATUS_UNDELIVERED,
    MessageStatus.FAILED: pb.MESSAGE_STATUS_FAILED,
    MessageStatus.DELIVERED: pb.MESSAGE_STATUS_DELIVERED,
    MessageStatus.READ: pb.MESSAGE_STATUS_READ,
}
_SOURCES = {
    TimeSource.PROVIDER: pb.TIME_SOURCE_PROVIDER,
    TimeSource.RECEIVED: pb.TIME_SOURCE_RECEIVED,
}


def message_to_proto(message: Message) -> pb.Message:
    """The message as it goes over the wire; unknown times are left unset."""
    delivery = message.delivery
    return pb.Message(
        id=message.id,
        conversation_id=message.conversation_id,
        direction=_DIRECTIONS[message.direction],
        status=_STATUSES[delivery.status],
        contact_address=message.contact_address,
        own_address=message.own_address,
        body=message.body,
        media=[pb.Media(url=one.url, content_type=one.content_type) for one in message.media],
        author=message.author,
        provider=message.provider,
        provider_message_id=message.provider_message_id or "",
        answers_message_id=message.answers_message_id or "",
        error_code=delivery.error_code or "",
        error_message=delivery.error_message or "",
        created_at=_timestamp(message.created_at),
        sent_at=_sourced(delivery.sent),
        delivered_at=_sourced(delivery.delivered),
        read_at=_sourced(delivery.read),
        failed_at=_sourced(delivery.failed),
    )


def _sourced(moment: Moment | None) -> pb.SourcedTime | None:
    if moment is None:
        return None
    return pb.SourcedTime(time=_timestamp(moment.at), source=_SOURCES[moment.source])


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
