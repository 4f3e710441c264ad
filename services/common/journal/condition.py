"""How JetStream and the journal's streams and consumers are, asked of the server."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError

from services.common.errors import UnavailableError

_TIMEOUT_SECONDS: Final = 1.5


@dataclass(frozen=True, slots=True)
class ConsumerCondition:
    """A durable consumer.

    Attributes:
        waiting: Events that it has not been given yet.
        under_way: Events that it was given and hasn't acknowledged.
        oldest_at: When the oldest of all these was stored; aware, UTC. None when there is none.
    """

    name: str
    waiting: int
    under_way: int
    oldest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StreamCondition:
    """A stream.

    Attributes:
        max_bytes: Where it refuses more; 0 for nowhere.
    """

    name: str
    messages: int
    bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class JetStreamCondition:
    """The server's JetStream.

    Attributes:
        round_trip_seconds: How long its API took to answer.
        storage_bytes: What all streams together have on disk.
        storage_max_bytes: What they may have; 0 where nothing is said.
        streams: Those of this server's account.
    """

    round_trip_seconds: float
    storage_bytes: int
    storage_max_bytes: int
    streams: tuple[StreamCondition, ...]


async def jetstream_condition(client: Client) -> JetStreamCondition:
    """How JetStream is.

    Raises:
        UnavailableError: It doesn't answer; the text says why.
    """
    if not client.is_connected:
        raise UnavailableError("there is no connection to NATS")
    js = client.jetstream(timeout=_TIMEOUT_SECONDS)
    try:
        began = time.perf_counter()
        account = await js.account_info()
        took = time.perf_counter() - began
        streams = await js.streams_info()
    except (nats.errors.Error, OSError) as error:
        raise _unavailable(error) from error
    return JetStreamCondition(
        round_trip_seconds=took,
        storage_bytes=account.storage,
        storage_max_bytes=max(account.limits.max_storage, 0),
        streams=tuple(_stream(info) for info in streams),
    )


async def consumer_condition(client: Client, stream: str, durable: str) -> ConsumerCondition | None:
    """How far a durable consumer is; None when there is none.

    Raises:
        UnavailableError: The server doesn't answer.
    """
    if not client.is_connected:
        raise UnavailableError("there is no connection to NATS")
    js = client.jetstream(timeout=_TIMEOUT_SECONDS)
    try:
        info = await js.consumer_info(stream, durable)
        waiting, under_way = info.num_pending or 0, info.num_ack_pending or 0
        oldest = await _oldest(js, stream, info) if waiting or under_way else None
    except NotFoundError:
        return None
    except (nats.errors.Error, OSError) as error:
        raise _unavailable(error) from error
    return ConsumerCondition(durable, waiting, under_way, oldest)


async def stream_messages(client: Client, stream: str) -> int:
    """How many messages a stream has; 0 when it doesn't exist.

    Raises:
        UnavailableError: The server doesn't answer.
    """
    if not client.is_connected:
        raise UnavailableError("there is no connection to NATS")
    try:
        return (await client.jetstream(timeout=_TIMEOUT_SECONDS).stream_info(stream)).state.messages
    except NotFoundError:
        return 0
    except (nats.errors.Error, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> UnavailableError:
    if isinstance(error, TimeoutError | nats.errors.NoRespondersError):
        return UnavailableError("JetStream doesn't answer")
    return UnavailableError(f"JetStream can't be asked: {type(error).__name__}")


async def _oldest(js: JetStreamContext, stream: str, info: ConsumerInfo) -> datetime | None:
    floor = info.ack_floor.stream_seq if info.ack_floor else 0
    try:
        first = await js.get_msg(
            stream, seq=floor + 1, subject=info.config.filter_subject, next=True
        )
    except NotFoundError:
        return None  # It has been handled meanwhile.
    return first.time


def _stream(info: StreamInfo) -> StreamCondition:
    return StreamCondition(
        name=str(info.config.name),
        messages=info.state.messages,
        bytes=info.state.bytes,
        max_bytes=max(info.config.max_bytes or 0, 0),
    )
