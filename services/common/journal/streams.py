"""The JetStream streams and consumers, in one place, created or checked at start."""

from collections.abc import Awaitable, Callable

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

log = structlog.get_logger(__name__)

INGEST_STREAM = "INGEST"
INGEST_SUBJECTS = "ingest.>"
DEAD_STREAM = "DEAD"
DEAD_SUBJECTS = "dead.>"
DUPLICATE_WINDOW_SECONDS = 600.0


async def connect(url: str, *, name: str, on_closed: Callable[[], Awaitable[None]]) -> Client:
    """Connect to NATS and go on reconnecting for ever.

    Args:
        url: One address, or several separated by commas; a token or user goes in the URL.
        on_closed: Called when the client has given up for good; the process should end.
    """

    async def on_error(error: Exception) -> None:
        log.warning("NATS error", error=repr(error))

    async def on_disconnect() -> None:
        log.warning("NATS disconnected")

    async def on_reconnect() -> None:
        log.info("NATS reconnected")

    return await nats.connect(
        url.split(","),
        name=name,
        # The default gives up after 60 attempts, and notices a dead link after minutes.
        max_reconnect_attempts=-1,
        ping_interval=5,
        max_outstanding_pings=2,
        reconnect_time_wait=0.5,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        closed_cb=on_closed,
    )


async def ensure_streams(js: JetStreamContext, *, replicas: int, max_bytes: int) -> None:
    """Create the streams, or bring existing ones to this configuration.

    Args:
        max_bytes: Size at which the journal refuses more; it never forgets to make room.
    """
    ingest = StreamConfig(
        name=INGEST_STREAM,
        subjects=[INGEST_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=max_bytes,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        allow_atomic=True,
    )
    dead = StreamConfig(
        name=DEAD_STREAM,
        subjects=[DEAD_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
    )
    for config in (ingest, dead):
        try:
            await js.stream_info(str(config.name))
        except NotFoundError:
            await js.add_stream(config)
        else:
            await js.update_stream(config)


async def ensure_ingest_consumer(
    js: JetStreamContext, *, durable: str, ack_wait_seconds: float, max_deliver: int
) -> None:
    """Create the durable pull consumer that all replicas share, or update it.

    `pull_subscribe` would silently keep the configuration of one that exists.
    """
    await js.add_consumer(
        INGEST_STREAM,
        ConsumerConfig(
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_seconds,
            max_deliver=max_deliver,
            max_ack_pending=4096,
        ),
    )
