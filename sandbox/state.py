"""Everything the sandbox remembers, in memory."""

import secrets
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, computed_field

FailedStatus = Literal["failed", "undelivered"]
VendorName = Literal[
    "transcription", "answer", "speech", "google_token", "google_speech", "recording"
]
DeliveryKind = Literal["message", "status", "call"]
Status = Literal["queued", "sending", "sent", "delivered", "read", "failed", "undelivered"]

# A status that comes late doesn't undo a later one.
_RANK = {
    "queued": 0,
    "sending": 1,
    "sent": 2,
    "failed": 3,
    "undelivered": 3,
    "delivered": 4,
    "read": 5,
}
_LOG_LENGTH = 10_000


class Delivery(BaseModel):
    """One webhook request: an inbound message or a status, as the application answered it."""

    kind: DeliveryKind
    url: str
    at: datetime
    parameters: dict[str, list[str]]
    attempts: int = 0
    response_status: int | None = None
    error: str | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy doesn't know the pair.
    @property
    def acknowledged(self) -> bool:
        """Whether the application took responsibility for the event."""
        return self.response_status is not None and 200 <= self.response_status < 300


class StatusChange(BaseModel):
    """A status, when it was reached, and the callbacks made for it."""

    status: str
    at: datetime
    error_code: int | None = None
    callbacks: list[Delivery] = []


class Media(BaseModel):
    """A file that belongs to a message."""

    sid: str
    content_type: str
    created_at: datetime


class Message(BaseModel):
    """A message as Twilio holds it."""

    sid: str
    direction: Literal["inbound", "outbound-api"]
    sender: str
    recipient: str
    body: str
    created_at: datetime
    status: str
    sent_at: datetime | None = None
    updated_at: datetime
    error_code: int | None = None
    status_callback: str | None = None
    content_sid: str | None = None
    media: list[Media] = []
    statuses: list[StatusChange] = []
    webhooks: list[Delivery] = []

    @property
    def contact(self) -> str:
        """The address of the person, whoever wrote."""
        return self.sender if self.direction == "inbound" else self.recipient

    def reach(self, status: str, at: datetime, error_code: int | None = None) -> StatusChange:
        """Record a status and return the record."""
        change = StatusChange(status=status, at=at, error_code=error_code)
        self.statuses.append(change)
        if _RANK.get(status, 0) >= _RANK.get(self.status, 0):
            self.status, self.error_code = status, error_code
        if status == "sent" and self.sent_at is None:
            self.sent_at = at
        self.updated_at = at
        return change


class RequestRecord(BaseModel):
    """A request to the pretend Twilio or OpenAI.

    `authorized` tells whether it came with credentials, right or wrong; no status means it was
    never answered.
    """

    at: datetime
    method: str
    path: str
    query: str
    authorized: bool = False
    status: int | None = None


class OpenAIRequest(BaseModel):
    """The body of a call for an answer, and the answer given."""

    at: datetime
    body: dict[str, Any]
    answer: str | None = None


class VendorCall(BaseModel):
    """A call of a pretend vendor.

    Attributes:
        about: The recording that was transcribed, the question that was answered, the text that
            was spoken, or the recording that was fetched.
        seconds: How long it took; None while it goes on.
    """

    at: datetime
    vendor: VendorName
    about: str
    seconds: float | None = None
    outcome: Literal["answered", "refused", "abandoned"] | None = None


class SandboxState:
    """Messages in the order they came, and what was asked of us."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.messages: dict[str, Message] = {}
        self.requests: deque[RequestRecord] = deque(maxlen=_LOG_LENGTH)
        self.openai_requests: deque[OpenAIRequest] = deque(maxlen=_LOG_LENGTH)
        self.vendor_calls: deque[VendorCall] = deque(maxlen=_LOG_LENGTH)

    def add(self, message: Message) -> None:
        """Keep a message."""
        self.messages[message.sid] = message

    def last_heard_from(self, contact: str) -> datetime | None:
        """When this contact last wrote to us."""
        return max(
            (m.created_at for m in self.messages.values() if m.sender == contact), default=None
        )

    def clear(self) -> None:
        """Forget everything."""
        self.messages.clear()
        self.requests.clear()
        self.openai_requests.clear()
        self.vendor_calls.clear()


def new_sid(prefix: str) -> str:
    """A Twilio identifier: two letters and 32 hexadecimal digits."""
    return prefix + secrets.token_hex(16)
