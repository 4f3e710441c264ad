"""Messages between the domain and `switchboard.messaging.v1`."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.messaging.v1 import message_pb2 as pb

from services.messaging.domain.message import (
    Direction,
    EventKind,
    Message,
    MessageEvent,
    MessageStatus,
    Moment,
    Template,
    TimeSource,
)
from services.messaging.grpc_api.tokens import encode_cursor

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
_KINDS = {
    EventKind.RECEIVED: pb.MESSAGE_EVENT_KIND_RECEIVED,
    EventKind.QUEUED: pb.MESSAGE_EVENT_KIND_QUEUED,
    EventKind.ATTEMPT: pb.MESSAGE_EVENT_KIND_ATTEMPT,
    EventKind.OUTCOME: pb.MESSAGE_EVENT_KIND_OUTCOME,
    EventKind.STATUS: pb.MESSAGE_EVENT_KIND_STATUS,
    EventKind.REACTION: pb.MESSAGE_EVENT_KIND_REACTION,
    EventKind.EDIT: pb.MESSAGE_EVENT_KIND_EDIT,
    EventKind.DELETION: pb.MESSAGE_EVENT_KIND_DELETION,
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
        media=[
            pb.Media(
                url=one.url,
                content_type=one.content_type,
                id=one.id or "",
                size_bytes=one.size_bytes or 0,
                problem=one.problem or "",
            )
            for one in message.media
        ],
        author=message.author,
        provider=message.provider,
        provider_message_id=message.provider_message_id or "",
        answers_message_id=message.answers_message_id or "",
        error_code=delivery.error_code or "",
        error_message=delivery.error_message or "",
        created_at=timestamp(message.created_at),
        sent_at=_sourced(delivery.sent),
        delivered_at=_sourced(delivery.delivered),
        read_at=_sourced(delivery.read),
        # A report that came too late is in the history: what arrived has not failed.
        failed_at=_sourced(delivery.failed if delivery.status.is_failure else None),
        template=_template(message.template),
        reply_to_message_id=message.reply_to_message_id or "",
    )


def event_to_proto(event: MessageEvent) -> pb.MessageEvent:
    """The event as it goes over the wire."""
    return pb.MessageEvent(
        cursor=encode_cursor(event.position),
        message_id=event.message_id,
        kind=_KINDS[event.kind],
        status=_STATUSES[event.status] if event.status else pb.MESSAGE_STATUS_UNSPECIFIED,
        occurred_at=_sourced(event.moment),
        provider=event.provider,
        error_code=event.error_code or "",
        error_message=event.error_message or "",
        outcome=event.outcome or "",
        origin=event.origin or "",
        text=event.text,
    )


def _template(template: Template | None) -> pb.Template | None:
    if template is None:
        return None
    return pb.Template(id=template.id, variables=dict(template.variables))


def _sourced(moment: Moment | None) -> pb.SourcedTime | None:
    if moment is None:
        return None
    return pb.SourcedTime(time=timestamp(moment.at), source=_SOURCES[moment.source])


def timestamp(time: datetime) -> Timestamp:
    """The time as it goes over the wire."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
