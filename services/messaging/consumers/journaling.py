"""Adding to the journal what no webhook brought."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.common.errors import UnavailableError
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import INGEST_STREAM, INTAKE_STREAM
from services.common.tracing import new_traceparent
from services.messaging.consumers.ingest import DURABLE
from services.messaging.domain.text import storable
from services.messaging.ports.clock import Clock
from services.messaging.ports.recovering import ListedEvent

ORIGIN: Final = "reconciler"
SOURCE: Final = "/messaging/reconciler"

_LOOK_SECONDS: Final = 0.5
_BUNDLED_SECONDS: Final = 10.0


class WebhookJournal:
    """`EventJournal` on JetStream.

    Args:
        patience_seconds: How long to wait for what stands in the journal to be handled.
    """

    def __init__(
        self,
        client: Client,
        publisher: JournalPublisher,
        *,
        clock: Clock,
        patience_seconds: float = 60.0,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._clock = clock
        self._patience_seconds = patience_seconds

    async def caught_up(self) -> bool:
        """Wait until what stands in the journal now is handled; False when it takes too long."""
        js = self._client.jetstream()
        try:
            await _unbundled(js)
            last = (await js.stream_info(INGEST_STREAM)).state.last_seq
            async with asyncio.timeout(self._patience_seconds):
                idle_before = False
                while True:
                    consumer = await js.consumer_info(INGEST_STREAM, DURABLE.name)
                    handled = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
                    idle = not (consumer.num_pending or consumer.num_ack_pending)
                    # A new consumer of a journal that was cleared never gets to `last`; and it
                    # takes a moment until one knows of an event that has just come.
                    if handled >= last or (idle and idle_before):
                        return True
                    idle_before = idle
                    await asyncio.sleep(_LOOK_SECONDS)
        except nats.errors.TimeoutError as error:
            raise UnavailableError("the journal doesn't answer") from error
        except (TimeoutError, NotFoundError):
            return False
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError("the journal doesn't answer") from error

    async def add(
        self,
        provider: str,
        event: ListedEvent,
        parameters: Sequence[tuple[str, str]],
        received_at: datetime,
    ) -> None:
        """Journal an event as if its webhook had come, with its origin marked."""
        webhook = WebhookReceived(
            provider=provider,
            origin=ORIGIN,
            # In a webhook the edge does the same.
            parameters=[Parameter(name=name, value=storable(value)) for name, value in parameters],
        )
        webhook.received_at.FromDatetime(received_at)
        await self._publisher.publish(
            JournalEvent(
                kind=event.kind,
                key=event.key,
                source=SOURCE,
                time=self._clock(),
                data=webhook.SerializeToString(),
                traceparent=new_traceparent(),
            )
        )


async def _unbundled(js: JetStreamContext) -> None:
    """Wait for what edges have bundled, those that died too; not for what nobody can move."""
    last = (await js.stream_info(INTAKE_STREAM)).state.last_seq
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BUNDLED_SECONDS):
            while True:
                state = (await js.stream_info(INTAKE_STREAM)).state
                if not state.messages or state.first_seq > last:
                    return
                await asyncio.sleep(_LOOK_SECONDS)
