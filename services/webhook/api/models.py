"""The JSON that goes out."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """Base of what is answered. Every member is always there; what is unknown is null."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class SourcedTime(Shape):
    """A moment, and whose clock measured it."""

    time: datetime
    source: Literal["provider", "received"] = Field(
        description="`provider`: the provider said when. `received`: when its report reached us."
    )


class Media(Shape):
    """A file that came with a message, or goes out with one."""

    id: str | None = Field(description="For `/api/whatsapp/media/{id}`; null while there is none.")
    url: str = Field(description="Where the provider has it, or takes it from.")
    content_type: str | None
    size_bytes: int | None = Field(description="Of the stored copy.")
    problem: str | None = Field(description="Why there will be no stored copy.")


class Template(Shape):
    """A message approved beforehand."""

    id: str
    variables: dict[str, str]


class Failure(Shape):
    """The provider's code and words."""

    code: str | None
    message: str | None


Direction = Literal["inbound", "outbound"]
MessageStatus = Literal[
    "received", "queued", "sending", "sent", "undelivered", "failed", "delivered", "read"
]


class Message(Shape):
    """One message between a contact and one of our addresses."""

    id: str
    conversation_id: str
    direction: Direction
    status: MessageStatus
    contact_address: str
    own_address: str
    body: str
    media: list[Media]
    template: Template | None
    author: str = Field(description="`contact`, `assistant`, `person` or `program`.")
    provider: str
    provider_message_id: str | None = Field(description="Null until the provider accepted it.")
    reply_to: str | None = Field(description="Id of the message that it replies to.")
    answers: str | None = Field(description="Id of the message that the assistant answers.")
    error: Failure | None
    created_at: datetime
    sent_at: SourcedTime | None
    delivered_at: SourcedTime | None
    read_at: SourcedTime | None
    failed_at: SourcedTime | None = Field(
        description="Null unless the status is `failed` or `undelivered`."
    )


class MessageEvent(Shape):
    """Something that happened to a message."""

    cursor: str = Field(description="Position for `/api/whatsapp/stream`.")
    message_id: str
    kind: Literal[
        "received", "queued", "attempt", "outcome", "status", "reaction", "edit", "deletion"
    ]
    status: MessageStatus | None
    occurred_at: SourcedTime
    provider: str | None
    outcome: str | None = Field(
        description="Of an attempt: `accepted`, `rejected`, `retry` or `unknown`."
    )
    error: Failure | None
    origin: str | None = Field(
        description="`reconciler` when it was not reported but found by asking the provider."
    )
    text: str | None = Field(
        description="Of a reaction the emoji, empty when taken back; of an edit the new text."
    )


class MessageWithHistory(Message):
    """A message and what happened to it."""

    events: list[MessageEvent] = Field(
        description="Oldest first; the newest 200 only, and fewer where their texts are long."
    )


class MessagePage(Shape):
    """Messages, newest first."""

    messages: list[Message]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class Identity(Shape):
    """One name by which a contact is known."""

    kind: str
    value: str


class Contact(Shape):
    """A person."""

    id: str
    display_name: str | None
    identities: list[Identity]
    opted_out_at: datetime | None = Field(description="Set while the contact wants no messages.")


class Conversation(Shape):
    """All that was said between a contact and one of our addresses."""

    id: str
    contact: Contact
    contact_address: str
    own_address: str
    created_at: datetime
    last_message_at: datetime | None
    window_closes_at: datetime | None = Field(
        description="Until when messages that are no template may be sent."
    )
    unread_count: int
    assistant_paused_at: datetime | None = Field(description="Set while the assistant is silent.")
    assistant_paused_by: str | None = Field(description="`person` or `api`.")
    last_message: Message | None


class ConversationPage(Shape):
    """Conversations, the one with the newest message first."""

    conversations: list[Conversation]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class ConversationWithMessages(Shape):
    """A conversation and a page of its messages, newest first."""

    conversation: Conversation
    messages: list[Message]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


CallStatus = Literal[
    "queued",
    "ringing",
    "in_progress",
    "busy",
    "failed",
    "no_answer",
    "canceled",
    "completed",
]
CallOutcome = Literal["answered", "transferred", "voicemail", "missed", "closed"]


class AnswerPart(Shape):
    """A sentence of an answer."""

    text: str
    audio_url: str | None = Field(
        description="Where the rendered speech is, until it expires; null when the provider spoke."
    )
    played: bool = Field(description="The caller heard it to its end.")


class TurnTimings(Shape):
    """Seconds that the stages of a turn took, each from the end of the one before."""

    fetch: float | None
    transcribe: float | None
    first_sentence: float | None
    first_audio: float | None
    gap: float | None = Field(description="From the recording's webhook to the first audio.")


class Turn(Shape):
    """Once the caller spoke, and what was answered."""

    number: int = Field(description="From 1.")
    state: Literal["working", "done", "silent", "failed", "canceled"]
    voicemail: bool = Field(description="A message that the caller left.")
    transcript: str | None = Field(description="What the caller said.")
    answer: list[AnswerPart]
    digits: str | None = Field(description="Keys pressed.")
    recording_id: str | None = Field(description="The provider's, while the provider has it.")
    recording_seconds: float | None
    heard_at: datetime
    timings: TurnTimings
    problem: str | None = Field(description="Why there is no answer.")


class Call(Shape):
    """A telephone call."""

    id: str = Field(description="The provider's id, for Twilio the CallSid.")
    provider: str
    status: CallStatus
    outcome: CallOutcome | None = Field(description="What came of it, as far as is known.")
    caller: str = Field(description="E.164, or what the provider says of a hidden number.")
    called: str
    language: str | None = Field(description="The language last spoken, as BCP 47.")
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    seconds: float | None


class CallWithTurns(Call):
    """A telephone call, and what was said."""

    turns: list[Turn] = Field(description="Oldest first.")


class CallPage(Shape):
    """Calls, newest first."""

    calls: list[Call]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class Pairing(Shape):
    """How a phone's owner lets us in. Whoever reads it can take the session over."""

    qr: str | None = Field(description="What the QR code to be scanned holds.")
    code: str | None = Field(description="What is to be typed on the phone instead.")
    expires_at: datetime | None


class ProviderStatus(Shape):
    """How a provider is doing."""

    name: str
    state: Literal["healthy", "degraded", "unavailable", "untried"]
    reason: str | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_error: str | None
    retry_at: datetime | None = Field(description="While unavailable: when it is tried again.")
    pairing: Pairing | None = Field(description="While a phone is to be paired with it.")


class QueueSizes(Shape):
    """How many messages are where."""

    due: int = Field(description="Waiting to be sent.")
    sending: int = Field(description="Being handed to a provider.")
    unknown: int = Field(description="Sent or not: being looked up.")
    replies: int = Field(description="Conversations that wait for the assistant.")
    parked: int = Field(description="Reports about messages not known yet.")
    oldest_unsettled_at: datetime | None


class Status(Shape):
    """The providers and the queues."""

    provider: ProviderStatus
    fallback: ProviderStatus | None
    queues: QueueSizes


class StreamEvent(Shape):
    """What the stream's `data` holds."""

    event: MessageEvent
    message: Message = Field(description="As it stands now.")
