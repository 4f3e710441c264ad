"""Acts as events of the journal, and back."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.events.v1 import acts_pb2 as pb

from services.common.journal.events import EventKind, JournalEvent, MalformedEventError
from services.common.tracing import new_traceparent
from services.messaging.consumers.decoding import PoisonError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.conversation import PausedBy
from services.messaging.domain.message import Author, Media, MessageStatus, Template
from services.messaging.ports.acts import (
    Act,
    ActConversation,
    Attempted,
    Ended,
    Opened,
    Paused,
    Queued,
    Read,
    Resumed,
)
from services.messaging.ports.sending import OutcomeKind

SOURCE: Final = "/messaging"

_KINDS: Final[Mapping[type[Act], EventKind]] = {
    Opened: EventKind.CONVERSATION_OPENED,
    Read: EventKind.CONVERSATION_READ,
    Paused: EventKind.ASSISTANT_PAUSED,
    Resumed: EventKind.ASSISTANT_RESUMED,
    Queued: EventKind.MESSAGE_QUEUED,
    Attempted: EventKind.MESSAGE_ATTEMPTED,
    Ended: EventKind.ATTEMPT_ENDED,
}


def act_event(act: Act) -> JournalEvent:
    """The event of an act."""
    data = _data(act)
    data.at.FromDatetime(act.at)
    return JournalEvent(
        kind=_KINDS[type(act)],
        key=act.key,
        source=SOURCE,
        time=act.at,
        data=data.SerializeToString(),
        traceparent=new_traceparent(),
    )


def decode_act(headers: Mapping[str, str] | None, data: bytes) -> Act:
    """Read a message of the stream of acts.

    Raises:
        PoisonError: It is no act that we know.
    """
    try:
        event = JournalEvent.parse(headers, data)
        return _act(event)
    except MalformedEventError as error:
        raise PoisonError(str(error)) from error
    except DecodeError as error:
        raise PoisonError("the data is not what ce-type says") from error
    except (ValueError, OverflowError) as error:
        # The text would quote the value.
        raise PoisonError("a field has a value that this version doesn't know") from error


def _data(act: Act) -> Any:
    match act:
        case Opened():
            return pb.ConversationOpened(conversation=_conversation(act.conversation))
        case Read():
            return pb.ConversationRead(
                conversation=_conversation(act.conversation), message_id=act.message_id
            )
        case Paused():
            return pb.AssistantPaused(conversation=_conversation(act.conversation), by=act.by.value)
        case Resumed():
            return pb.AssistantResumed(conversation=_conversation(act.conversation))
        case Queued():
            return _queued(act)
        case Attempted():
            return pb.MessageAttempted(
                message_id=act.message_id, attempt=act.attempt, provider=act.provider
            )
        case Ended():
            return pb.AttemptEnded(
                message_id=act.message_id,
                attempt=act.attempt,
                provider=act.provider,
                outcome=act.outcome.value,
                provider_message_id=act.provider_message_id or "",
                status=act.status.value if act.status else "",
                error_code=act.error_code or "",
                error_message=act.error_message or "",
                void=act.void,
            )


def _queued(act: Queued) -> pb.MessageQueued:
    template = act.template
    return pb.MessageQueued(
        conversation=_conversation(act.conversation),
        message_id=act.message_id,
        author=act.author.value,
        contact_address=act.contact_address,
        body=act.body,
        media=[pb.OutboundMedia(url=one.url, content_type=one.content_type) for one in act.media],
        template=None
        if template is None
        else pb.Template(id=template.id, variables=dict(template.variables)),
        reply_to_message_id=act.reply_to_message_id or "",
        answers_message_id=act.answers_message_id or "",
        provider=act.provider,
        request_id=act.request_id or "",
        request_hash=act.request_hash or "",
    )


def _conversation(conversation: ActConversation) -> pb.Conversation:
    message = pb.Conversation(
        id=conversation.id,
        contact_id=conversation.contact_id,
        identity_kind=conversation.identity.kind.value,
        identity=conversation.identity.value,
        contact_address=conversation.contact_address,
        own_address=conversation.own_address,
    )
    message.opened_at.FromDatetime(conversation.opened_at)
    return message


def _act(event: JournalEvent) -> Act:
    key = event.key
    match event.kind:
        case EventKind.CONVERSATION_OPENED:
            opened = pb.ConversationOpened.FromString(event.data)
            return Opened(key, _time(opened), _known(opened.conversation))
        case EventKind.CONVERSATION_READ:
            read = pb.ConversationRead.FromString(event.data)
            return Read(key, _time(read), _known(read.conversation), _id(read.message_id))
        case EventKind.ASSISTANT_PAUSED:
            paused = pb.AssistantPaused.FromString(event.data)
            by = PausedBy(paused.by)
            return Paused(key, _time(paused), _known(paused.conversation), by)
        case EventKind.ASSISTANT_RESUMED:
            resumed = pb.AssistantResumed.FromString(event.data)
            return Resumed(key, _time(resumed), _known(resumed.conversation))
        case EventKind.MESSAGE_QUEUED:
            return _known_queued(key, pb.MessageQueued.FromString(event.data))
        case EventKind.MESSAGE_ATTEMPTED:
            begun = pb.MessageAttempted.FromString(event.data)
            return Attempted(
                key, _time(begun), _id(begun.message_id), begun.attempt, _id(begun.provider)
            )
        case EventKind.ATTEMPT_ENDED:
            return _known_end(key, pb.AttemptEnded.FromString(event.data))
    raise MalformedEventError("ce-type is of no act")


def _known_queued(key: str, queued: pb.MessageQueued) -> Queued:
    template = queued.template
    return Queued(
        key=key,
        at=_time(queued),
        conversation=_known(queued.conversation),
        message_id=_id(queued.message_id),
        author=Author(queued.author),
        contact_address=queued.contact_address,
        body=queued.body,
        provider=_id(queued.provider),
        media=tuple(Media(one.url, one.content_type) for one in queued.media),
        template=Template(template.id, dict(template.variables))
        if queued.HasField("template")
        else None,
        reply_to_message_id=queued.reply_to_message_id or None,
        answers_message_id=queued.answers_message_id or None,
        request_id=queued.request_id or None,
        request_hash=queued.request_hash or None,
    )


def _known_end(key: str, ended: pb.AttemptEnded) -> Ended:
    return Ended(
        key=key,
        at=_time(ended),
        message_id=_id(ended.message_id),
        attempt=ended.attempt,
        provider=_id(ended.provider),
        outcome=OutcomeKind(ended.outcome),
        provider_message_id=ended.provider_message_id or None,
        status=MessageStatus(ended.status) if ended.status else None,
        error_code=ended.error_code or None,
        error_message=ended.error_message or None,
        void=ended.void,
    )


def _known(conversation: pb.Conversation) -> ActConversation:
    return ActConversation(
        id=_id(conversation.id),
        contact_id=_id(conversation.contact_id),
        identity=Identity(IdentityKind(conversation.identity_kind), _id(conversation.identity)),
        contact_address=_id(conversation.contact_address),
        own_address=_id(conversation.own_address),
        opened_at=_datetime(conversation, "opened_at"),
    )


def _id(text: str) -> str:
    if not text:
        raise MalformedEventError("a field that is always set is empty")
    return text


def _time(message: Message) -> datetime:
    return _datetime(message, "at")


def _datetime(message: Message, field: str) -> datetime:
    if not message.HasField(field):
        raise MalformedEventError(f"{field} is missing")
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)
