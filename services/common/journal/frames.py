"""How events go over the wire to JetStream, and what it answers."""

import json

from nats.aio.msg import Msg

from services.common.journal.events import JournalEvent


def batch_frame(event: JournalEvent, batch_id: str, number: int) -> bytes:
    """An event as NATS' protocol has it, as one message of a batch.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    headers = (
        f"NATS/1.0\r\n{event.header_lines()}"
        f"Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {number}\r\n\r\n"
    )
    # All of it is ASCII.
    size = len(headers)
    head = f"HPUB {event.kind.subject} {size} {size + len(event.data)}\r\n{headers}"
    return b"%b%b\r\n" % (head.encode("ascii"), event.data)


def refusal_in(reply: Msg) -> str:
    """Why JetStream refused, or "" when it stored the message or knew it already."""
    try:
        answer = json.loads(reply.data)
    except ValueError:
        return "its answer is not JSON"
    if "error" in answer:
        return str(answer["error"].get("description", "no reason given"))
    return "" if "stream" in answer else "its answer is no acknowledgement"
