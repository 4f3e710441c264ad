"""Whoever has the edge's password for NATS can write anything into the journal, and stops nothing.

Such a message is written as bytes of the protocol: no client would send it.
"""

import pytest
from nats.aio.client import Client

from tests.support.journal import consuming, dead, journal, publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import Inbox, message_event
from tests.support.sending import until

_SUBJECT = b"ingest.whatsapp.message"


async def _write(client: Client, subject: bytes, headers: bytes) -> None:
    block = b"NATS/1.0" + headers + b"\r\n\r\n"
    # Its public methods refuse to send this.
    await client._send_command(
        b"HPUB %b %d %d\r\n%bjunk\r\n" % (subject, len(block), len(block) + 4, block)
    )
    await client.flush()


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        (_SUBJECT, b"\r\nfoo(bar): x"),
        (_SUBJECT, b"\r\nfoo\x00: x"),
        (_SUBJECT, b"\r\nfoo: \xff\xfe"),
        (_SUBJECT, b"\r\nfoo: " + b"\xff" * 65_000),
        (_SUBJECT, b"\r\nfoo: " + b"x" * 65_500),
        (_SUBJECT, b"\r\nce-id: " + b"x" * 65_500),
        (_SUBJECT, b"\r\nNats-Msg-Id: " + b"x" * 65_400),
        (_SUBJECT, b"\r\nce-id: %FF%0D%0A\r\nce-id: 2\r\ntraceparent: 00-zz"),
        (_SUBJECT, b" 404 \xff\xfe"),
        (_SUBJECT, b" 100 Idle Heartbeat\r\nNats-Last-Consumer: 1"),
        (b"ingest.whatsapp.\xff\xfe", b"\r\nfoo: x"),
        (b"ingest.whatsapp." + "שלום".encode(), b"\r\nfoo: x"),
        (b"ingest.whatsapp." + b"x" * 3000, b"\r\nfoo: x"),
    ],
    ids=[
        *("no token", "a zero byte", "no UTF-8", "long without UTF-8", "long"),
        *("a long key", "a long id", "twice", "a status", "a heartbeat"),
        *("a subject without UTF-8", "a Hebrew subject", "a long subject"),
    ],
)
async def test_what_no_client_would_write_is_put_aside(
    nats_server: NatsServer, subject: bytes, headers: bytes
) -> None:
    """It is in DEAD, and what came with it and after it is handled."""
    inbox = Inbox()
    async with journal(nats_server) as client:
        await publish(client, message_event(1))
        await _write(client, subject, headers)
        await publish(client, message_event(2))
        async with consuming(client, inbox, ack_wait=5):
            await until(settled(client))
            await publish(client, message_event(3))
            await until(settled(client))
        letters = await dead(client)
    assert sorted(inbox.ids) == ["SM00000001", "SM00000002", "SM00000003"]
    assert len(letters) == 1
