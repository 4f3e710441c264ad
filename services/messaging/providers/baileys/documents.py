"""The documents of the file queue, as docs/baileys-queue.md defines them."""

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

MAX_BYTES: Final = 262_144

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)


class Problem(StrEnum):
    """Why a file can't be read."""

    FOREIGN = "foreign"
    NOT_A_FILE = "not_a_file"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    VERSION = "version"
    KIND = "kind"
    FIELD = "field"


class BadDocumentError(ValueError):
    """A file of the queue can't be read; the text names fields and never their values.

    Attributes:
        field: The field at fault, with dots, when the problem is one.
    """

    def __init__(self, problem: Problem, explanation: str, field: str = "") -> None:
        super().__init__(f"{problem}: {explanation}")
        self.problem = problem
        self.field = field


def _time(value: object) -> datetime:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("must be a time in UTC such as 2026-03-01T12:00:00Z")
    return datetime.fromisoformat(value)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank")
    return value


def _word(most: int) -> Any:
    return Field(pattern=rf"^[!-~]{{1,{most}}}$")


def _text(most: int) -> Any:
    return Field(max_length=most)


Time = Annotated[datetime, BeforeValidator(_time)]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$")]
PhoneChat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@s\.whatsapp\.net$")]
LidChat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@lid$")]
Chat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@(?:s\.whatsapp\.net|lid)$")]
Id = Annotated[str, _word(128)]
SendId = Annotated[str, Field(pattern=r"^3EB0[0-9A-F]{18}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
LongText = Annotated[str, _text(65_536)]
Name = Annotated[str, _text(255)]
Code = Annotated[str, _word(32)]
Explanation = Annotated[str, _text(1000)]
Number = Annotated[float, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class QueueFile(_Model):
    """A file in `media/`."""

    sha256: Sha256
    size: Count
    mimetype: Name


class Reference(_Model):
    """Another message."""

    id: Id
    from_me: bool


class Quoted(Reference):
    """What a send replies to."""

    text: Annotated[str, _text(4096)]


class SendText(_Model):
    type: Literal["text"]
    text: Annotated[LongText, AfterValidator(_not_blank)]


class SendMedia(_Model):
    type: Literal["media"]
    media: Literal["image", "video", "audio", "document"]
    file: QueueFile
    caption: LongText
    filename: Name | None = None


class Send(_Model):
    """One attempt to send a message."""

    v: Literal[1] = 1
    kind: Literal["send"] = "send"
    id: SendId
    ref: Annotated[str, _word(128)]
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


class Answer(_Model):
    """What became of one send file."""

    v: Literal[1] = 1
    kind: Literal["answer"] = "answer"
    id: SendId | None = None
    ref: Annotated[str, _word(128)] | None = None
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


class Text(_Model):
    type: Literal["text"]
    text: LongText


class Media(_Model):
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


class Location(_Model):
    type: Literal["location"]
    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]
    name: Name
    address: Annotated[str, _text(1024)]
    live: bool


class ContactCard(_Model):
    name: Name
    vcard: Annotated[str, _text(16_384)]


class Contacts(_Model):
    type: Literal["contacts"]
    contacts: Annotated[list[ContactCard], Field(min_length=1, max_length=257)]


class Reaction(_Model):
    type: Literal["reaction"]
    emoji: Annotated[str, _text(64)]
    of: Reference


class Edit(_Model):
    type: Literal["edit"]
    text: LongText
    of: Reference


class Deletion(_Model):
    type: Literal["deletion"]
    of: Reference


class Unsupported(_Model):
    type: Literal["unsupported"]
    name: Annotated[str, _word(64)]


Content = Text | Media | Location | Contacts | Reaction | Edit | Deletion | Unsupported


class Message(_Model):
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


class Status(_Model):
    """What WhatsApp says about a message that was sent."""

    v: Literal[1] = 1
    kind: Literal["status"] = "status"
    id: Id
    account: Phone
    ref: Annotated[str, _word(128)] | None = None
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


class Lid(_Model):
    """A LID and a phone that are one person's."""

    v: Literal[1] = 1
    kind: Literal["lid"] = "lid"
    account: Phone
    lid: LidChat
    phone: PhoneChat
    at: Time


class SessionState(StrEnum):
    """What the bridge's session is about."""

    CONNECTING = "connecting"
    PAIRING = "pairing"
    OPEN = "open"
    LOGGED_OUT = "logged_out"
    RESTRICTED = "restricted"
    BLOCKED = "blocked"


class Pairing(_Model):
    qr: Annotated[str, _text(1024)] | None = None
    code: Annotated[str, _text(16)] | None = None
    expires_at: Time


class Pace(_Model):
    min_seconds: Number
    max_seconds: Number


class Queues(_Model):
    outbox: Count
    inbox: Count
    undecryptable: Count


class Versions(_Model):
    bridge: Code
    baileys: Code
    node: Code
    whatsapp: Code | None = None


class State(_Model):
    """`state.json`."""

    v: Literal[1] = 1
    state: Annotated[SessionState, Field(strict=False)]
    since: Time
    written_at: Time
    reason: Annotated[str, _text(500)]
    close_code: int | None = None
    retry_at: Time | None = None
    restricted_until: Time | None = None
    account: Phone | None = None
    lid: LidChat | None = None
    last_frame_at: Time | None = None
    ack_latency_ms: Count | None = None
    ack_pending_since: Time | None = None
    pairing: Pairing | None = None
    pace: Pace
    queues: Queues
    versions: Versions


InboxDocument = Message | Status | Lid

OUTBOX: Final[dict[str, type[Send]]] = {"send": Send}
DONE: Final[dict[str, type[Answer]]] = {"answer": Answer}
INBOX: Final[dict[str, type[Message] | type[Status] | type[Lid]]] = {
    "message": Message,
    "status": Status,
    "lid": Lid,
}

Model = TypeVar("Model", bound=BaseModel)


def parse_document(content: bytes, kinds: dict[str, type[Model]]) -> Model:
    """The document in a file.

    Args:
        kinds: What may stand in the folder.

    Raises:
        BadDocumentError: It can't be read.
    """
    document = _object(content)
    kind = document.get("kind")
    model = kinds.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise BadDocumentError(Problem.KIND, "doesn't belong into this folder")
    return _validated(model, document)


def parse_state(content: bytes) -> State:
    """The content of `state.json`.

    Raises:
        BadDocumentError: It can't be read.
    """
    return _validated(State, _object(content))


def plain_json(content: str) -> dict[str, Any]:
    """A document that was read once, without what PostgreSQL can't store."""
    document = _clean(json.loads(content))
    if not isinstance(document, dict):
        raise TypeError("not an object")
    return document


def document_bytes(document: Send | Answer | InboxDocument | State) -> bytes:
    """A document as it is written."""
    fields = document.model_dump(exclude_none=True)
    return json.dumps(fields, ensure_ascii=False, default=time_text).encode()


def time_text(value: datetime) -> str:
    """A time as documents have it."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _object(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        raise BadDocumentError(Problem.TOO_LARGE, f"has more than {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadDocumentError(Problem.NOT_UTF8, f"at byte {error.start}") from None
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadDocumentError(Problem.NOT_JSON, "is no whole JSON document") from None
    if not isinstance(document, dict):
        raise BadDocumentError(Problem.NOT_AN_OBJECT, "is JSON, but no object")
    version = document.get("v")
    if version != 1 or isinstance(version, bool):
        raise BadDocumentError(Problem.VERSION, "v is not 1")
    cleaned: dict[str, Any] = _clean(document)
    return cleaned


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _clean(value: Any) -> Any:
    """Without NUL and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    return value


def _validated(model: type[Model], document: dict[str, Any]) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = _field(first)
        raise BadDocumentError(Problem.FIELD, f"{field} {_words(first)}", field) from None


def _field(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    if path[0] == "content" and len(path) > 1:
        del path[1]  # pydantic names the chosen kind of content, too.
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("type")
    return ".".join(path)


def _words(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    return "is malformed"
