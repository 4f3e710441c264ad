"""Requests that are good HTTP and make no sense: refused, or taken for what is signed in them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from switchboard.events.v1.events_pb2 import WebhookReceived

from services.common.audio import AudioBucket, BucketConfig
from services.common.journal.events import JournalEvent
from tests.support.api import PretendMessaging, running_api, served
from tests.support.attacks import Attacks
from tests.support.edge import (
    FORM,
    INCOMING,
    STATUS,
    Edge,
    journal_client,
    message,
    running_edge,
    stored,
)
from tests.support.nats import NatsServer
from tests.support.raw_http import END, Header, chunked, connected, exchange, head, signed, statuses

ID = "0123456789abcdef" * 4
CONTENT = bytes(range(256)) * 100
LINE = b"POST " + INCOMING.encode() + b" HTTP/1.1"


@pytest.fixture
async def speaking(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that has rendered speech."""
    async with journal_client(nats_server.url) as client:
        bucket = AudioBucket(client, config=BucketConfig(ttl=timedelta(days=1), replicas=1))
        await bucket.put(ID, CONTENT)
        async with running_edge(client, tmp_path / "spill.db") as edge:
            yield edge


async def test_a_webhook_has_one_method(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """A good signature opens no other method, and none is looked for in a header."""
    good = signed("SMmethod")
    headers = {name.decode(): value.decode() for name, value in good.headers}
    headers |= {"x-http-method-override": "POST", "origin": "null"}
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
        for path in (INCOMING, STATUS, "/webhook/incoming_call", "/webhook/voice/continue"):
            answer = await edge.http.request(method, path, headers=headers, content=good.body)
            told = [name for name in answer.headers if name.startswith("access-control")]
            attacks.count("methods", through=answer.status_code != 405 or bool(told))
    assert await stored(nats_server.url) == []


async def test_what_surrounds_a_good_webhook_changes_nothing(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Trailers, hosts, ranges, encodings and doubled headers: stored as signed, or refused."""
    good = signed("SMgood")
    length = (b"Content-Length", b"%d" % len(good.body))
    around: dict[str, tuple[list[Header], bytes]] = {
        "waiting for 100": ([(b"Expect", b"100-continue"), length], good.body),
        "expecting more": ([(b"Expect", b"200-ok"), length], good.body),
        "two hosts": ([(b"Host", b"evil.example.com"), length], good.body),
        "a range": ([(b"Range", b"bytes=0-3"), length], good.body),
        "a prefix": ([(b"X-Forwarded-Prefix", b"/x"), length], good.body),
        "cookies": ([(b"Cookie", b"a=" + b"x" * 4000), length], good.body),
        "another type first": ([(b"Content-Type", b"application/json"), length], good.body),
        "called compressed": ([(b"Content-Encoding", b"gzip"), length], good.body),
        "chunks and a trailer": (
            [(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X-Twilio-Signature")],
            chunked([good.body])[:-2] + b"X-Twilio-Signature: x\r\nMessageSid: SMevil\r\n\r\n",
        ),
        "chunks of a byte": (
            [(b"Transfer-Encoding", b"chunked")],
            chunked(bytes([one]) for one in good.body),
        ),
    }
    for kind, (headers, body) in around.items():
        request = head(LINE, *headers, *good.headers) + body
        answer = [one for one in statuses(await exchange(edge.port, request, END)) if one != 100]
        attacks.count(f"around a webhook: {kind}", through=answer[0] >= 500, evidence=answer)
    [event] = await stored(nats_server.url)
    received = WebhookReceived.FromString(JournalEvent.parse(event.headers, event.data).data)
    assert {one.name: one.value for one in received.parameters} == message("SMgood")


async def test_a_trailer_is_no_header(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """It proves nothing about a request, and neither replaces nor adds to what its head says."""
    good = signed("SMtrailer")
    chunks = chunked([good.body])[:-2]
    trailers = {
        "signature": (400, good.headers[:1], b"%b: %b\r\n\r\n" % good.headers[1]),
        "another signature": (200, good.headers, b"X-Twilio-Signature: x\r\n\r\n"),
        "another type": (200, good.headers, b"Content-Type: application/json\r\n\r\n"),
    }
    for kind, (expected, headers, trailer) in trailers.items():
        request = head(LINE, *headers, (b"Transfer-Encoding", b"chunked"))
        for pieces in ((request + chunks + trailer,), (request, chunks, trailer)):
            async with connected(edge.port) as connection:
                status = await connection.ask(*pieces)
            attacks.count(f"trailers: {kind}", through=status != expected, evidence=status)
    assert len(await stored(nats_server.url)) == 1


async def test_parameters_have_a_measure(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Signed, too: thousands of parameters are refused, and no id leaves its header or subject."""
    many = {f"p{number}": "" for number in range(1001)}
    answer = await edge.post(INCOMING, {**message("SMmany"), **many})
    attacks.count("parameters: too many", through=answer.status_code != 400)
    query = "?" + "&".join(f"q{number}" for number in range(1001))
    answer = await edge.post(INCOMING + query, message("SMquery"))
    attacks.count("parameters: too many", through=answer.status_code != 400)
    odd = {"": "", "\0": "\0", "a" * 30_000: "", "\u202e": "\U0001f600" * 100, "MessageSid ": "x"}
    for name, value in odd.items():
        parameters = {**message(f"SM{len(name)}{len(value)}"), name: value}
        answer = await edge.post(INCOMING, parameters)
        attacks.count("parameters: odd", through=answer.status_code not in (200, 400, 413))
    for sid in ("", "\0", "SM\r\nNats-Msg-Id: x", "SM.>*", "S" * 20_000, "\u202eSM", "\U0001f600"):
        answer = await edge.post(INCOMING, message(sid))
        attacks.count("parameters: ids", through=answer.status_code not in (200, 400))
    for event in await stored(nats_server.url):
        key = JournalEvent.parse(event.headers, event.data).key
        whole = event.subject == "ingest.whatsapp.message" and len(key) <= 200 and key.isascii()
        attacks.count("parameters: what is journaled", through=not whole, evidence=event.subject)


RANGES = [
    "bytes=0-",
    "bytes=-0",
    "bytes=-99999999999999999999",
    "bytes=99999999999999999-",
    "bytes=5-1",
    "bytes=0-0,1-1",
    "bytes=" + ",".join(f"{n}-" for n in range(2000)),
    "bytes=0-" + "9" * 5000,
    "bytes=\u0661-",
    "bytes=0x1-2",
    "bytes=1e3-",
    "bytes = 0-1",
    "items=0-1",
    "bytes=-1-2",
    "bytes=--1",
    "bytes=",
    "*",
]


async def test_ranges_give_no_more_than_the_file(speaking: Edge, attacks: Attacks) -> None:
    """However a range is asked for, one answer holds part of the file at most once."""
    for wanted in RANGES:
        for more in ({}, {"if-range": f'"{ID}"'}, {"if-range": '"x"'}):
            headers = {"range": wanted, **more}
            raw = {name.encode(): value.encode() for name, value in headers.items()}
            answer = await speaking.http.get(f"/audio/{ID}.mp3", headers=raw)
            through = answer.status_code not in (200, 206, 416) or answer.content not in CONTENT
            attacks.count("ranges", through=through, evidence=(wanted, answer.status_code))


BOMBS = {
    "depth": b"[" * 60_000,
    "depth of objects": b'{"to":' * 10_000,
    "depth that is closed": b"[" * 30_000 + b"]" * 30_000,
    "digits": b"1" * 60_000,
    "an exponent": b'{"to": 1e999999999}',
    "no numbers": b'{"to": NaN, "body": -Infinity}',
    "names": b"{" + b",".join(b'"a%d":1' % n for n in range(6000)) + b"}",
    "one name often": b"{" + b",".join(b'"to":"x"' for n in range(6000)) + b"}",
    "escapes": b'{"to": "' + b"\\u0000" * 9000 + b'"}',
    "halves": b'{"to": "' + b"\\ud800" * 9000 + b'"}',
    "UTF-16": '{"to": "x"}'.encode("utf-16"),
    "UTF-7": b"+AHsAfQ-",
    "no UTF-8": b'{"to": "\xff\xfe\xc0\x80"}',
    "overlong": b'{"to": "\xc0\xaf"}',
    "a mark": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "variables": b'{"to":"1","template":{"id":"x","variables":{'
    + b",".join(b'"v%d":"x"' % n for n in range(3000))
    + b"}}}",
    "a form": b"to=%2B972501234567&body=x",
    "XML": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "too much": b'"' + b"x" * 70_000 + b'"',
}


async def test_bombs_in_json_are_refused(attacks: Attacks) -> None:
    """Deep, long, broken or in another encoding: an error of the sender's, handed on to nobody."""
    messaging = PretendMessaging()
    async with served(messaging) as address, running_api(address) as api:
        for kind, bomb in BOMBS.items():
            for media_type in ("application/json", "application/json; charset=utf-16", FORM):
                answer = await api.http.post(
                    "/api/whatsapp/send", content=bomb, headers={"content-type": media_type}
                )
                short = len(answer.content) < 8000 and b"\0" not in answer.content
                attacks.count(
                    f"JSON: {kind}",
                    through=answer.status_code not in (400, 413, 415) or not short,
                    evidence=(answer.status_code, answer.text[:500]),
                )
    assert messaging.requests == []
