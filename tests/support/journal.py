"""What tests of the journal's readers share: streams on a real server, and a running consumer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry

from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import DEAD_STREAM, INGEST_STREAM, connect, ensure_streams
from services.messaging.consumers.decoding import Translator
from services.messaging.consumers.durable import ConsumerOptions
from services.messaging.consumers.ingest import DURABLE, Handler, IngestConsumer
from services.messaging.domain.contact import SamePerson
from services.messaging.providers.twilio import webhooks
from tests.support.nats import NatsServer

JOURNAL_BYTES = 64 * 1024**2


async def closed() -> None:
    """For a connection whose end is no news."""


@contextlib.asynccontextmanager
async def journal(server: NatsServer) -> AsyncIterator[Client]:
    """A connection, with the streams in place."""
    client = await connect(server.url, name="test", on_closed=closed)
    await ensure_streams(client.jetstream(), replicas=1, max_bytes=JOURNAL_BYTES)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def consuming(
    client: Client,
    handle: Handler,
    *,
    batch_size: int = 256,
    ack_wait: float = 30,
    max_attempts: int = 10,
    first_delay: float = 0.05,
    patience: float = 0.1,
    translators: Mapping[str, Translator] | None = None,
    join: Callable[[Sequence[SamePerson]], Awaitable[object]] | None = None,
) -> AsyncIterator[None]:
    """A consumer that runs while the context is open, and is then stopped in order."""
    more: dict[str, Any] = {} if join is None else {"join": join}
    consumer = IngestConsumer(
        client,
        handle,
        translators or {webhooks.PROVIDER: webhooks},
        **more,
        registry=CollectorRegistry(),
        options=ConsumerOptions(
            batch_size=batch_size,
            fetch_seconds=0.2,
            ack_wait_seconds=ack_wait,
            max_attempts=max_attempts,
            first_delay_seconds=first_delay,
            patience_seconds=patience,
        ),
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def publishing(client: Client) -> AsyncIterator[JournalPublisher]:
    """A publisher, closed afterwards."""
    publisher = JournalPublisher(client)
    try:
        yield publisher
    finally:
        await publisher.close()


async def publish(client: Client, *events: JournalEvent, duplicates: int = 1) -> None:
    """Put events into the journal, without its own deduplication."""
    js = client.jetstream()
    for event in events:
        headers = event.entry().named_headers()
        del headers["Nats-Msg-Id"]
        for _ in range(duplicates):
            # A disk that is shared with other tests may take its time.
            await js.publish(event.kind.subject, event.data, headers=headers, timeout=60)


def settled(client: Client) -> Callable[[], Awaitable[bool]]:
    """Whether every event of the journal was delivered and acknowledged."""

    async def nothing_left() -> bool:
        js = client.jetstream()
        try:
            last = (await js.stream_info(INGEST_STREAM)).state.last_seq
            info = await js.consumer_info(INGEST_STREAM, DURABLE.name)
        except nats.errors.Error:
            return False
        # Not by `num_pending`: for a moment after a publish it is still 0.
        return info.ack_floor is not None and info.ack_floor.stream_seq >= last

    return nothing_left


async def dead(client: Client) -> list[Msg]:
    """Everything in the stream `DEAD`."""
    js = client.jetstream()
    state = (await js.stream_info(DEAD_STREAM)).state
    subscription = await js.subscribe("dead.>", stream=DEAD_STREAM, ordered_consumer=True)
    try:
        return [await subscription.next_msg(timeout=60) for _ in range(state.messages)]
    finally:
        await subscription.unsubscribe()
