"""Putting messages into JetStream, one by one or several as one, and what it answers."""

import itertools
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.common.errors import UnavailableError
from services.common.journal.entries import Entry

_BATCH_PREFIX = uuid.uuid4().hex
_batch_numbers = itertools.count()


class JournalUnavailableError(UnavailableError):
    """The journal didn't confirm the event. It may hold it all the same; the id deduplicates."""


class JournalSilentError(JournalUnavailableError):
    """It is connected, and didn't answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What JetStream answered.

    Attributes:
        refusal: Why it refused; "" when it stored the message, or knew it already.
        sequence: Where the message stands in its stream; 0 when it was refused.
    """

    refusal: str
    sequence: int = 0


async def put(client: Client, entry: Entry, *, seconds: float) -> Answer:
    """Put one message into its stream.

    Args:
        seconds: To wait for the answer.

    Raises:
        JournalSilentError: There was none.
        JournalUnavailableError: There is no connection, or no stream.
    """
    return await _ask(client, entry, {}, seconds)


async def put_together(client: Client, entries: Sequence[Entry], *, seconds: float) -> Answer:
    """Put messages into the stream that all of them belong to, or none of them.

    As an atomic batch, of at most 1,000
    (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md). JetStream
    refuses one of which it knows one message already, for example.

    Args:
        seconds: To wait for the answer.

    Raises:
        JournalSilentError: There was none.
        JournalUnavailableError: There is no connection, or no stream.
    """
    _check_connected(client)
    batch_id = f"{_BATCH_PREFIX}-{next(_batch_numbers)}"
    staged = b"".join(
        [_staged(entry, batch_id, number) for number, entry in enumerate(entries[:-1], 1)]
    )
    try:
        # Written in one piece: `publish` for each would cost several times as much. The client
        # sends this and the request below together, in this order.
        await client._send_command(staged)
    except (nats.errors.Error, OSError) as error:
        raise JournalUnavailableError(f"the journal didn't answer: {error!r}") from error
    commit = {
        "Nats-Batch-Id": batch_id,
        "Nats-Batch-Sequence": str(len(entries)),
        "Nats-Batch-Commit": "1",
    }
    return await _ask(client, entries[-1], commit, seconds)


async def _ask(client: Client, entry: Entry, more: dict[str, str], seconds: float) -> Answer:
    # The client would keep what is published without a connection in a buffer of its own.
    _check_connected(client)
    try:
        reply = await client.request(
            entry.subject,
            entry.data,
            timeout=seconds,
            headers=entry.named_headers() | more or None,
        )
    except nats.errors.TimeoutError as error:
        raise JournalSilentError("the journal didn't answer in time") from error
    except (nats.errors.Error, OSError) as error:
        raise JournalUnavailableError(f"the journal didn't answer: {error!r}") from error
    return _answer(reply)


def _check_connected(client: Client) -> None:
    if not client.is_connected:
        raise JournalUnavailableError("the journal is not connected")


def _staged(entry: Entry, batch_id: str, number: int) -> bytes:
    """A message of a batch, as NATS' protocol has it.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    headers = (
        f"NATS/1.0\r\n{entry.headers}"
        f"Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {number}\r\n\r\n"
    )
    # All of it is ASCII.
    size = len(headers)
    head = f"HPUB {entry.subject} {size} {size + len(entry.data)}\r\n{headers}"
    return b"%b%b\r\n" % (head.encode("ascii"), entry.data)


def _answer(reply: Msg) -> Answer:
    try:
        answer = json.loads(reply.data)
    except ValueError:
        return Answer("its answer is not JSON")
    if "error" in answer:
        return Answer(str(answer["error"].get("description", "no reason given")))
    if "stream" not in answer or not answer.get("seq"):
        return Answer("its answer is no acknowledgement")
    return Answer("", int(answer["seq"]))
