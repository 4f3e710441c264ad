"""`state.json`: how the bridge's session is, as docs/baileys-queue.md defines it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from services.messaging.providers.baileys.fields import (
    Code,
    Count,
    LidChat,
    Number,
    Phone,
    QueueModel,
    Time,
    text,
)
from services.messaging.providers.baileys.parsing import read_object, validated


class SessionState(StrEnum):
    """What the bridge's session is about."""

    CONNECTING = "connecting"
    PAIRING = "pairing"
    OPEN = "open"
    LOGGED_OUT = "logged_out"
    RESTRICTED = "restricted"
    BLOCKED = "blocked"


class Pairing(QueueModel):
    qr: Annotated[str, text(1024)] | None = None
    code: Annotated[str, text(16)] | None = None
    expires_at: Time


class Pace(QueueModel):
    min_seconds: Number
    max_seconds: Number


class Queues(QueueModel):
    outbox: Count
    inbox: Count
    undecryptable: Count


class Versions(QueueModel):
    bridge: Code
    baileys: Code
    node: Code
    whatsapp: Code | None = None


class State(QueueModel):
    """`state.json`."""

    v: Literal[1] = 1
    state: Annotated[SessionState, Field(strict=False)]
    since: Time
    written_at: Time
    reason: Annotated[str, text(500)]
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


def parse_state(content: bytes) -> State:
    """The content of `state.json`.

    Raises:
        BadDocumentError: It can't be read.
    """
    return validated(State, read_object(content))
