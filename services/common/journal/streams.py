"""The JetStream streams and consumers, in one place, created or checked at start."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypedDict
from urllib.parse import urlsplit

import nats.errors
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

from services.common.journal.client import NatsClient, cancellable

log = structlog.get_logger(__name__)

INGEST_STREAM = "INGEST"
INGEST_SUBJECTS = "ingest.>"
INTAKE_STREAM = "INTAKE"
INTAKE_SUBJECTS = "intake.>"
ACTS_STREAM = "ACTS"
ACTS_SUBJECTS = "acts.>"
DEAD_STREAM = "DEAD"
DEAD_SUBJECTS = "dead.>"
DUPLICATE_WINDOW_SECONDS = 600.0
_INTAKE_BYTES = 256 * 1024 * 1024


async def connect(
    url: str,
    *,
    name: str,
    on_closed: Callable[[], Awaitable[None]],
    client: Client | None = None,
) -> Client:
    """Connect to NATS, trying for ever, and go on reconnecting for ever.

    Args:
        url: One address, or several separated by commas; a token or user goes in the URL.
        name: Who we are. Answers come to an inbox of this name, so that NATS can be told to let
            nobody else hear them (`deploy/nats/users.conf`).
        on_closed: Called when the client has given up for good; the process should end.
        client: One to connect that others hold already.
    """
    client = client or NatsClient()

    async def on_error(error: Exception) -> None:
        log.warning("NATS error", error=repr(error))

    async def on_disconnect() -> None:
        # It is also called when the client is closed on purpose.
        if not client.is_closed:
            log.warning("NATS disconnected")

    async def on_reconnect() -> None:
        log.info("NATS reconnected")

    await client.connect(
        url.split(","),
        name=name,
        inbox_prefix=f"_INBOX.{name}",
        **_credentials(url),
        # The default gives up after 60 attempts, and notices a dead link after minutes.
        max_reconnect_attempts=-1,
        ping_interval=5,
        max_outstanding_pings=2,
        reconnect_time_wait=1,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        closed_cb=on_closed,
    )
    return client


class _Credentials(TypedDict, total=False):
    user: str
    password: str
    token: str


def _credentials(url: str) -> _Credentials:
    """The user and password, or the token, that stand in every address alike.

    A cluster tells the client of further addresses, in which nothing stands.
    """
    found = {(part.username, part.password) for part in map(urlsplit, url.split(","))}
    user, password = found.pop()
    if found or user is None:
        return {}
    return {"token": user} if password is None else {"user": user, "password": password}


async def keep_connected(
    client: Client,
    url: str,
    *,
    name: str,
    replicas: int,
    max_bytes: int,
    owner: bool,
    ready: asyncio.Event | None = None,
) -> None:
    """Connect `client`, however long NATS stays away, and see to the streams at each connection.

    Args:
        owner: Whether streams that are there are brought to this configuration. Whoever only
            adds to them creates those that are missing, and needs no leave to change any.
        ready: Set once the streams are there for the first time.

    Raises:
        ConnectionError: The client has given up for good.
    """
    await cancellable(
        _keep_connected(
            client,
            url,
            name=name,
            replicas=replicas,
            max_bytes=max_bytes,
            owner=owner,
            ready=ready,
        )
    )


async def _keep_connected(
    client: Client,
    url: str,
    *,
    name: str,
    replicas: int,
    max_bytes: int,
    owner: bool,
    ready: asyncio.Event | None,
) -> None:
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    await connect(url, name=name, on_closed=on_closed, client=client)
    checked = -1
    while not closed.is_set():
        connection = client.stats["reconnects"]
        if client.is_connected and connection != checked:
            try:
                await ensure_streams(
                    client.jetstream(), replicas=replicas, max_bytes=max_bytes, owner=owner
                )
                checked = connection
                if ready is not None:
                    ready.set()
            except (nats.errors.Error, OSError) as error:
                log.warning("the journal's streams are not ready", error=repr(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), timeout=1.0)
    raise ConnectionError("the NATS client has given up")


async def ensure_streams(
    js: JetStreamContext, *, replicas: int, max_bytes: int, owner: bool = True
) -> None:
    """Create the streams, or bring existing ones to this configuration.

    Args:
        max_bytes: Size at which the journal refuses more; it never forgets to make room.
        owner: Otherwise existing ones are left as they are.
    """
    ingest = _journal_config(INGEST_STREAM, INGEST_SUBJECTS, replicas, max_bytes)
    dead = StreamConfig(
        name=DEAD_STREAM,
        subjects=[DEAD_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
    )
    # Where events are that were acknowledged together, until they are in INGEST a moment later.
    intake = StreamConfig(
        name=INTAKE_STREAM,
        subjects=[INTAKE_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=_INTAKE_BYTES,
        num_replicas=replicas,
    )
    for config in (ingest, intake, dead):
        await _ensure(js, config, update=owner)


async def ensure_acts_stream(js: JetStreamContext, *, replicas: int, max_bytes: int) -> None:
    """Create or update the stream of what messaging did; only messaging needs it.

    A stream of its own, so that it can never take the room of webhooks.
    """
    await _ensure(js, _journal_config(ACTS_STREAM, ACTS_SUBJECTS, replicas, max_bytes), update=True)


def _journal_config(name: str, subjects: str, replicas: int, max_bytes: int) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=max_bytes,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        allow_atomic=True,
    )


async def _ensure(js: JetStreamContext, config: StreamConfig, *, update: bool) -> None:
    try:
        await js.stream_info(str(config.name))
    except NotFoundError:
        await js.add_stream(config)
    else:
        if update:
            await js.update_stream(config)


async def ensure_ingest_consumer(
    js: JetStreamContext,
    *,
    durable: str,
    subjects: str,
    ack_wait_seconds: float,
    max_deliver: int,
) -> None:
    """Create the durable pull consumer that all replicas share, or update it where it stands.

    `pull_subscribe` would silently keep the configuration of one that exists.

    Args:
        subjects: What it gets; may hold wildcards.
    """
    await js.add_consumer(
        INGEST_STREAM,
        ConsumerConfig(
            durable_name=durable,
            filter_subject=subjects,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_seconds,
            max_deliver=max_deliver,
            max_ack_pending=4096,
        ),
    )
