"""Events of the journal as CloudEvents in binary mode: attributes in headers, protobuf as data."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from services.common.journal.entries import Entry
from services.common.tracing import TRACEPARENT, sent_traceparent


class EventKind(Enum):
    """What may stand in the journal: subject and CloudEvents type."""

    WHATSAPP_MESSAGE = ("ingest.whatsapp.message", "switchboard.whatsapp.message.v1")
    WHATSAPP_STATUS = ("ingest.whatsapp.status", "switchboard.whatsapp.status.v1")
    WHATSAPP_IDENTITY = ("ingest.whatsapp.identity", "switchboard.whatsapp.identity.v1")
    VOICE_CALL = ("ingest.voice.call", "switchboard.voice.call.v1")
    VOICE_STATUS = ("ingest.voice.status", "switchboard.voice.status.v1")
    VOICE_RECORDING = ("ingest.voice.recording", "switchboard.voice.recording.v1")
    VOICE_CONTINUATION = ("ingest.voice.continuation", "switchboard.voice.continuation.v1")
    CONVERSATION_OPENED = ("acts.conversation.opened", "switchboard.conversation.opened.v1")
    CONVERSATION_READ = ("acts.conversation.read", "switchboard.conversation.read.v1")
    ASSISTANT_PAUSED = ("acts.assistant.paused", "switchboard.assistant.paused.v1")
    ASSISTANT_RESUMED = ("acts.assistant.resumed", "switchboard.assistant.resumed.v1")
    MESSAGE_QUEUED = ("acts.message.queued", "switchboard.message.queued.v1")
    MESSAGE_ATTEMPTED = ("acts.message.attempted", "switchboard.message.attempted.v1")
    ATTEMPT_ENDED = ("acts.message.ended", "switchboard.message.ended.v1")

    def __init__(self, subject: str, type_: str) -> None:
        self.subject = subject
        self.type = type_


_KINDS = {kind.type: kind for kind in EventKind}
_PRINTABLE = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"%')
_PLAIN = re.compile(f"[{re.escape(_PRINTABLE)}]*").fullmatch


class MalformedEventError(ValueError):
    """A stream message is not an event of ours; the text says why."""


class JournalEvent(NamedTuple):
    """One event as it stands in the journal.

    A tuple, because one is made for each webhook, and a frozen dataclass takes four times as long.

    Attributes:
        key: The natural key, CloudEvents `id` and deduplication id: the same webhook always
            has the same key.
        source: CloudEvents `source`, for example "/webhook/whatsapp/incoming".
        time: When the edge received it, or when messaging did it; aware, UTC.
        data: A serialized `switchboard.events.v1` message.
        traceparent: What the event belongs to: the request that brought it, or itself alone.
    """

    kind: EventKind
    key: str
    source: str
    time: datetime
    data: bytes
    traceparent: str

    def entry(self) -> Entry:
        """The stream message, header values escaped as CloudEvents' HTTP binding says."""
        key = _escape(self.key)
        headers = (
            f"Nats-Msg-Id: {key}\r\nce-specversion: 1.0\r\nce-id: {key}\r\n"
            f"ce-source: {_escaped_source(self.source)}\r\nce-type: {self.kind.type}\r\n"
            f"ce-time: {self.time.isoformat()}\r\ncontent-type: application/protobuf\r\n"
            f"{TRACEPARENT}: {self.traceparent}\r\n"
        )
        return Entry(self.kind.subject, headers, self.data)

    @classmethod
    def parse(cls, headers: Mapping[str, str] | None, data: bytes) -> "JournalEvent":
        """Read a stream message.

        Raises:
            MalformedEventError: An attribute is missing or unknown.
        """
        if not headers:
            raise MalformedEventError("no headers")
        kind = _KINDS.get(headers.get("ce-type", ""))
        if kind is None:
            raise MalformedEventError("ce-type is missing or unknown")
        if not headers.get("ce-id"):
            raise MalformedEventError("ce-id is missing")
        try:
            time = datetime.fromisoformat(headers.get("ce-time", ""))
        except ValueError as error:
            raise MalformedEventError("ce-time is not an RFC 3339 time") from error
        if time.tzinfo is None:
            raise MalformedEventError("ce-time has no offset")
        return cls(
            kind=kind,
            key=unquote(headers["ce-id"]),
            source=unquote(headers.get("ce-source", "")),
            time=time,
            data=data,
            traceparent=sent_traceparent(headers.get(TRACEPARENT, "")),
        )


def _escape(value: str) -> str:
    # Nearly every value is plain already, and `quote` takes long to find that out.
    return value if _PLAIN(value) else quote(value, safe=_PRINTABLE)


# There are few.
_escaped_source = lru_cache(64)(_escape)
