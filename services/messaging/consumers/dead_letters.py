"""The stream for events that can't be handled: kept with the reason, for a person to decide."""

import re
from collections.abc import Mapping

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.common.errors import UnavailableError
from services.common.journal import dead
from services.common.journal.streams import DEAD_STREAM
from services.messaging.consumers.delivery import Delivery

log = structlog.get_logger(__name__)

_HEADERS_LIMIT = 4096
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TEXT = re.compile(r"[ -~]*")
_MOST_KEPT = 32 * 1024
"""Characters of an event's own headers. JetStream takes 64 KiB of all headers together."""
_LONGEST_ID = 1024


class DeadLetters:
    """Moves events of the journal to the stream `DEAD`."""

    def __init__(self, client: Client, *, timeout_seconds: float = 5.0) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def bury(self, event: Delivery, reason: str) -> None:
        """Put a copy into `DEAD`, and only then end the event's delivery.

        The copy has the original's data and headers, and in `dead-*` headers the reason, the
        original's subject, sequence and id, and how often it was delivered. Headers that none of
        our programs writes, and could not be written again, are left out.

        Args:
            reason: Shown to operators; it must hold no phone number and no text of a message.

        Raises:
            UnavailableError: `DEAD` didn't confirm the copy; the event stays in delivery.
        """
        message, metadata = event.message, event.message.metadata
        original = message.headers or {}
        headers = {
            **_kept(original),
            "Nats-Msg-Id": _id(metadata),
            dead.REASON: _one_line(reason),
            dead.SUBJECT: message.subject,
            dead.SEQUENCE: str(metadata.sequence.stream),
            dead.DELIVERIES: str(metadata.num_delivered),
            dead.MESSAGE_ID: original.get("Nats-Msg-Id", "")[:_LONGEST_ID],
        }
        data = message.data
        size = len(data) + sum(len(name) + len(text) + 4 for name, text in headers.items())
        if size + _HEADERS_LIMIT > self._client.max_payload:
            # The original stays in the journal under its sequence.
            headers[dead.OMITTED] = "omitted: too large with these headers"
            data = b""
        subject = f"dead.{message.subject.removeprefix('ingest.')}"
        try:
            await self._client.jetstream().publish(
                subject, data, timeout=self._timeout_seconds, stream=DEAD_STREAM, headers=headers
            )
            await event.term()
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError("the stream for dead events doesn't answer") from error
        log.error(
            "event moved to the dead stream",
            subject=message.subject,
            sequence=metadata.sequence.stream,
            deliveries=metadata.num_delivered,
            reason=reason,
        )


def _kept(original: Mapping[str, str]) -> dict[str, str]:
    """An event's own headers, as far as they can be published again."""
    kept, room = {}, _MOST_KEPT
    for name, text in original.items():
        # Those that steer JetStream belong to the first publishing.
        if name.lower().startswith("nats-"):
            continue
        room -= len(name) + len(text)
        if room >= 0 and _NAME.fullmatch(name) and _TEXT.fullmatch(text):
            kept[name] = text
    return kept


def _id(metadata: Msg.Metadata) -> str:
    """The same however often an event is buried, and another's once the journal is made anew."""
    return f"{metadata.stream}.{metadata.sequence.stream}.{metadata.timestamp.isoformat()}"


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())[:500]
