"""The stream for events that can't be handled: kept with the reason, for a person to decide."""

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.common.errors import UnavailableError
from services.common.journal import dead
from services.common.journal.streams import DEAD_STREAM

log = structlog.get_logger(__name__)

_HEADERS_LIMIT = 4096


class DeadLetters:
    """Moves events of the journal to the stream `DEAD`."""

    def __init__(self, client: Client, *, timeout_seconds: float = 5.0) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def bury(self, event: Msg, reason: str) -> None:
        """Put a copy into `DEAD`, and only then end the event's delivery.

        The copy has the original's data and headers, and in `dead-*` headers the reason, the
        original's subject, sequence and id, and how often it was delivered.

        Args:
            reason: Shown to operators; it must hold no phone number and no text of a message.

        Raises:
            UnavailableError: `DEAD` didn't confirm the copy; the event stays in delivery.
        """
        metadata = event.metadata
        original = event.headers or {}
        headers = {
            # Headers that steer JetStream belong to the first publishing.
            **{name: text for name, text in original.items() if not _steers(name)},
            "Nats-Msg-Id": f"{metadata.stream}.{metadata.sequence.stream}",
            dead.REASON: _one_line(reason),
            dead.SUBJECT: event.subject,
            dead.SEQUENCE: str(metadata.sequence.stream),
            dead.DELIVERIES: str(metadata.num_delivered),
            dead.MESSAGE_ID: original.get("Nats-Msg-Id", ""),
        }
        data = event.data
        size = len(data) + sum(len(name) + len(text) + 4 for name, text in headers.items())
        if size + _HEADERS_LIMIT > self._client.max_payload:
            # The original stays in the journal under its sequence.
            headers[dead.OMITTED] = "omitted: too large with these headers"
            data = b""
        subject = f"dead.{event.subject.removeprefix('ingest.')}"
        try:
            await self._client.jetstream().publish(
                subject, data, timeout=self._timeout_seconds, stream=DEAD_STREAM, headers=headers
            )
            await event.term()
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError("the stream for dead events doesn't answer") from error
        log.error(
            "event moved to the dead stream",
            subject=event.subject,
            sequence=metadata.sequence.stream,
            deliveries=metadata.num_delivered,
            reason=reason,
        )


def _steers(header: str) -> bool:
    return header.lower().startswith("nats-")


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())[:500]
