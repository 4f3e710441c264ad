"""The documents of the file queue, as docs/baileys-queue.md defines them."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    ValidationInfo,
    field_validator,
)

from services.messaging.providers.baileys.fields import (
    Chat,
    Code,
    Count,
    Explanation,
    Id,
    LidChat,
    LongText,
    Name,
    Phone,
    PhoneChat,
    QueueModel,
    SendId,
    Sha256,
    Time,
    not_blank,
    text,
    word,
)
from services.messaging.providers.baileys.parsing import (
    BadDocumentError,
    Model,
    Problem,
    read_object,
    validated,
)
from services.messaging.providers.baileys.state import State


class QueueFile(QueueModel):
    """A file in `media/`."""

    sha256: Sha256
    size: Count
    mimetype: Name


class Reference(QueueModel):
    """Another message."""

    id: Id
    from_me: bool


class Quoted(Reference):
    """What a send replies to."""

    text: Annotated[str, text(4096)]


class SendText(QueueModel):
    type: Literal["text"]
    text: Annotated[LongText, AfterValidator(not_blank)]


class SendMedia(QueueModel):
    type: Literal["media"]
    media: Literal["image", "video", "audio", "document"]
    file: QueueFile
    caption: LongText
    filename: Name | None = None


class Send(QueueModel):
    """One attempt to send a message."""

    v: Literal[1] = 1
    kind: Literal["send"] = "send"
    id: SendId
    ref: Annotated[str, word(128)]
    attempt: Annotated[int, Field(ge=1)]
    account: Phone
    to: Chat
    created_at: Time
    expires_at: Time
    content: Annotated[SendText | SendMedia, Discriminator("type")]
    reply_to: Quoted | None = None


class AnswerOutcome(StrEnum):
    """What became of one send file."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


_Outcome = Annotated[AnswerOutcome, Field(strict=False)]


class Answer(QueueModel):
    """What became of one send file."""

    v: Literal[1] = 1
    kind: Literal["answer"] = "answer"
    id: SendId | None = None
    ref: Annotated[str, word(128)] | None = None
    attempt: Annotated[int, Field(ge=1)] | None = None
    outcome: _Outcome
    at: Time
    code: Code | None = Field(None, validate_default=True)
    message: Explanation | None = None
    retry_after_seconds: Count | None = None

    @field_validator("code")
    @classmethod
    def _explains(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("outcome") is not AnswerOutcome.ACCEPTED:
            raise ValueError("is required unless the outcome is accepted")
        return value


class Text(QueueModel):
    type: Literal["text"]
    text: LongText


class Media(QueueModel):
    type: Literal["media"]
    media: Literal["image", "video", "audio", "document", "sticker"]
    caption: LongText
    filename: Name | None = None
    file: QueueFile | None = None
    problem: Name | None = Field(None, validate_default=True)

    @field_validator("problem")
    @classmethod
    def _either(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "file" in info.data and (value is None) == (info.data["file"] is None):
            raise ValueError("is required exactly when there is no file")
        return value


class Location(QueueModel):
    type: Literal["location"]
    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]
    name: Name
    address: Annotated[str, text(1024)]
    live: bool


class ContactCard(QueueModel):
    name: Name
    vcard: Annotated[str, text(16_384)]


class Contacts(QueueModel):
    type: Literal["contacts"]
    contacts: Annotated[list[ContactCard], Field(min_length=1, max_length=257)]


class Reaction(QueueModel):
    type: Literal["reaction"]
    emoji: Annotated[str, text(64)]
    of: Reference


class Edit(QueueModel):
    type: Literal["edit"]
    text: LongText
    of: Reference


class Deletion(QueueModel):
    type: Literal["deletion"]
    of: Reference


class Unsupported(QueueModel):
    type: Literal["unsupported"]
    name: Annotated[str, word(64)]


Content = Text | Media | Location | Contacts | Reaction | Edit | Deletion | Unsupported


class Message(QueueModel):
    """What a contact wrote, or the owner on another device."""

    v: Literal[1] = 1
    kind: Literal["message"] = "message"
    id: Id
    account: Phone
    direction: Literal["in", "out"]
    chat: Chat
    chat_alt: Chat | None = None
    name: Name
    at: Time
    received_at: Time
    delivery: Literal["notify", "append"]
    content: Annotated[Content, Discriminator("type")]
    reply_to: Reference | None = None


class Status(QueueModel):
    """What WhatsApp says about a message that was sent."""

    v: Literal[1] = 1
    kind: Literal["status"] = "status"
    id: Id
    account: Phone
    ref: Annotated[str, word(128)] | None = None
    status: Literal["sent", "delivered", "read", "played", "failed"]
    at: Time
    code: Code | None = Field(None, validate_default=True)
    message: Explanation | None = None

    @field_validator("code")
    @classmethod
    def _explains(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("status") == "failed":
            raise ValueError("is required when the status is failed")
        return value


class Lid(QueueModel):
    """A LID and a phone that are one person's."""

    v: Literal[1] = 1
    kind: Literal["lid"] = "lid"
    account: Phone
    lid: LidChat
    phone: PhoneChat
    at: Time


InboxDocument = Message | Status | Lid

OUTBOX: Final[dict[str, type[Send]]] = {"send": Send}
DONE: Final[dict[str, type[Answer]]] = {"answer": Answer}
INBOX: Final[dict[str, type[Message] | type[Status] | type[Lid]]] = {
    "message": Message,
    "status": Status,
    "lid": Lid,
}


def parse_document(content: bytes, kinds: dict[str, type[Model]]) -> Model:
    """The document in a file.

    Args:
        kinds: What may stand in the folder.

    Raises:
        BadDocumentError: It can't be read.
    """
    document = read_object(content)
    kind = document.get("kind")
    model = kinds.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise BadDocumentError(Problem.KIND, "doesn't belong into this folder")
    return validated(model, document)


def document_bytes(document: Send | Answer | InboxDocument | State) -> bytes:
    """A document as it is written."""
    fields = document.model_dump(exclude_none=True)
    return json.dumps(fields, ensure_ascii=False, default=time_text).encode()


def time_text(value: datetime) -> str:
    """A time as documents have it."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
