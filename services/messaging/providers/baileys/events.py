"""What the bridge's inbox says, in our words: into the journal, and out of it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind as JournalKind
from services.common.journal.events import JournalEvent
from services.common.tracing import new_traceparent
from services.messaging.domain import message as domain
from services.messaging.domain.contact import (
    Identity,
    IdentityKind,
    InboundMessage,
    SamePerson,
    whatsapp_address,
)
from services.messaging.domain.message import EventKind, MessageStatus, StatusReport, TimeSource
from services.messaging.providers.baileys import documents
from services.messaging.providers.baileys.addresses import PROVIDER, identity_of
from services.messaging.providers.baileys.documents import (
    INBOX,
    InboxDocument,
    Lid,
    Message,
    Status,
    parse_document,
)
from services.messaging.providers.baileys.files import media_url
from services.messaging.providers.baileys.parsing import BadDocumentError, plain_json

SOURCE: Final = "/baileys/inbox"

_DOCUMENT: Final = "document"
_MAY_BE_AHEAD: Final = timedelta(minutes=5)

_STATUSES: Final = {
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "played": MessageStatus.READ,
    "failed": MessageStatus.FAILED,
}


def journal_event(content: bytes, now: datetime) -> JournalEvent:
    """A file of the inbox as it goes into the journal, whole, under its natural key.

    Raises:
        BadDocumentError: It can't be read.
    """
    document = parse_document(content, INBOX)
    kind, key = _kind_and_key(document)
    webhook = WebhookReceived(
        provider=PROVIDER, parameters=[Parameter(name=_DOCUMENT, value=content.decode())]
    )
    webhook.received_at.FromDatetime(_time(document, now))
    return JournalEvent(
        kind=kind,
        key=key,
        source=SOURCE,
        time=now,
        data=webhook.SerializeToString(),
        traceparent=new_traceparent(),
    )


def _kind_and_key(document: InboxDocument) -> tuple[JournalKind, str]:
    if isinstance(document, Lid):
        return JournalKind.WHATSAPP_IDENTITY, f"{PROVIDER}:lid:{document.lid}:{document.phone}"
    if isinstance(document, Status):
        words = [document.id, document.status, *([document.code] if document.code else [])]
        return JournalKind.WHATSAPP_STATUS, f"{PROVIDER}:status:{':'.join(words)}"
    if isinstance(document.content, documents.Reaction | documents.Edit | documents.Deletion):
        return JournalKind.WHATSAPP_STATUS, f"{PROVIDER}:{document.content.type}:{document.id}"
    return JournalKind.WHATSAPP_MESSAGE, f"{PROVIDER}:message:{document.id}"


def _time(document: InboxDocument, now: datetime) -> datetime:
    """WhatsApp's time, unless it can't be right."""
    latest = now + _MAY_BE_AHEAD
    if document.at <= latest:
        return document.at
    if isinstance(document, Message) and document.received_at <= latest:
        return document.received_at
    return now


@dataclass(frozen=True, slots=True)
class BaileysEvents:
    """`Translator` for what `journal_event` made.

    Attributes:
        account: Our number at WhatsApp Web, in E.164.
        own_address: What our side of a conversation is called, whichever provider it goes by.
    """

    account: str
    own_address: str

    def inbound_message(
        self, key: str, webhook: WebhookReceived, received_at: datetime
    ) -> InboundMessage:
        """Read a message of the contact's, or of the owner's from another device.

        Raises:
            InvalidInputError: It can't be stored as a message.
        """
        document, payload = _read(webhook)
        if not isinstance(document, Message):
            raise InvalidInputError("document.kind", "is no message")
        identities = _identities(document)
        body, media = _shown(document.content)
        return InboundMessage(
            event_key=key,
            provider=PROVIDER,
            provider_message_id=document.id,
            identities=identities,
            contact_address=whatsapp_address(identities[0]),
            own_address=self._own_address(document.account),
            body=body,
            received_at=received_at,
            profile_name="" if document.direction == "out" else document.name,
            media=media,
            payload=payload,
            from_us=document.direction == "out",
            reply_to=document.reply_to.id if document.reply_to else None,
        )

    def status_report(
        self, key: str, webhook: WebhookReceived, received_at: datetime
    ) -> StatusReport:
        """Read what happened to a message: a status, a reaction, an edit, a deletion.

        Raises:
            InvalidInputError: It is about nothing.
        """
        document, payload = _read(webhook)
        moment = domain.Moment(received_at, TimeSource.PROVIDER)
        if isinstance(document, Status):
            return StatusReport(
                event_key=key,
                provider=PROVIDER,
                provider_message_id=document.id,
                status=_STATUSES[document.status],
                moment=moment,
                message_id=document.ref,
                error_code=document.code,
                error_message=document.message,
                payload=payload,
            )
        if not isinstance(document, Message):
            raise InvalidInputError("document.kind", "is about no message")
        report = StatusReport(
            event_key=key,
            provider=PROVIDER,
            provider_message_id=document.id,
            status=None,
            moment=moment,
            payload=payload,
            by_us=document.direction == "out",
            contact=tuple(one.value for one in _identities(document)),
        )
        return _happened(document, report)

    def same_person(self, webhook: WebhookReceived, received_at: datetime) -> SamePerson:
        """Read a mapping of a LID to a phone.

        Raises:
            InvalidInputError: It is none.
        """
        document, _ = _read(webhook)
        if not isinstance(document, Lid):
            raise InvalidInputError("document.kind", "joins no names")
        return SamePerson(_known((document.phone, document.lid)), received_at)

    def _own_address(self, account: str) -> str:
        return self.own_address if account == self.account else f"whatsapp:{account}"


def _read(webhook: WebhookReceived) -> tuple[InboxDocument, dict[str, object]]:
    text = next((one.value for one in webhook.parameters if one.name == _DOCUMENT), "")
    try:
        document = parse_document(text.encode(), INBOX)
    except BadDocumentError as error:
        raise InvalidInputError(_DOCUMENT, str(error)) from error
    return document, plain_json(text)


def _identities(document: Message) -> tuple[Identity, ...]:
    chats = [document.chat, *([document.chat_alt] if document.chat_alt else [])]
    # A phone is the same at every provider, so it is the better address.
    return tuple(sorted(_known(chats), key=lambda one: one.kind is not IdentityKind.PHONE))


def _known(chats: tuple[str, ...] | list[str]) -> tuple[Identity, ...]:
    known = tuple(dict.fromkeys(one for one in map(identity_of, chats) if one is not None))
    if not known:
        raise InvalidInputError("document.chat", "is no address of a person")
    return known


def _happened(document: Message, report: StatusReport) -> StatusReport:
    content = document.content
    if not isinstance(content, documents.Reaction | documents.Edit | documents.Deletion):
        raise InvalidInputError("document.content.type", "is about no message")
    report = replace(report, provider_message_id=content.of.id)
    if isinstance(content, documents.Reaction):
        return replace(report, kind=EventKind.REACTION, text=content.emoji)
    if content.of.from_me != report.by_us:
        raise InvalidInputError("document.content.of", "is a message of somebody else's")
    if isinstance(content, documents.Edit):
        return replace(report, kind=EventKind.EDIT, text=content.text)
    return replace(report, kind=EventKind.DELETION)


def _shown(content: documents.Content) -> tuple[str, tuple[domain.Media, ...]]:
    """A message's content as a text and files; the whole of it stays in the event."""
    match content:
        case documents.Text():
            return content.text, ()
        case documents.Media():
            return content.caption, (_media(content),)
        case documents.Location():
            place = ", ".join(filter(None, (content.name, content.address)))
            return f"{place} ({content.latitude}, {content.longitude})".strip(), ()
        case documents.Contacts():
            return ", ".join(filter(None, (one.name for one in content.contacts))), ()
        case _:
            return "", ()


def _media(content: documents.Media) -> domain.Media:
    if content.file is None:
        return domain.Media(url="", content_type="", problem=content.problem)
    return domain.Media(url=media_url(content.file), content_type=content.file.mimetype)
