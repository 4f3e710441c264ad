"""Requests within requests: whatever the bytes, nothing is journaled that wasn't asked for."""

from dataclasses import replace

import pytest

from services.common.journal.events import JournalEvent
from tests.support.attacks import Attacks
from tests.support.edge import FORM, INCOMING, Edge, stored
from tests.support.nats import NatsServer
from tests.support.raw_http import (
    END,
    Flood,
    Header,
    Raw,
    chunked,
    connected,
    exchange,
    head,
    signed,
    statuses,
)

INNER = signed("SMinner").encoded()
"""Good by itself: it must not be seen where it is only part of another request."""

POST = b"POST " + INCOMING.encode() + b" HTTP/1.1"
OUTER: tuple[Header, ...] = (
    (b"Host", b"x"),
    (b"Content-Type", FORM.encode()),
    (b"X-Twilio-Signature", b"A" * 28),
)
IN_CHUNKS = chunked([INNER])
CHUNKED = (b"Transfer-Encoding", b"chunked")


def outer(*headers: Header, line: bytes = POST) -> bytes:
    return head(line, *OUTER, *headers)


def length(value: bytes | int) -> Header:
    return (b"Content-Length", b"%d" % value if isinstance(value, int) else value)


def obscured(*header: bytes) -> bytes:
    """A head whose last header is written as it stands here."""
    return outer()[:-2] + b"".join(header) + b"\r\n\r\n"


WITHIN = length(len(INNER))
LENGTHS = {
    "CL.TE": outer(length(5 + len(INNER)), CHUNKED) + b"0\r\n\r\n" + INNER,
    "CL.TE the other way round": outer(CHUNKED, length(5 + len(INNER))) + b"0\r\n\r\n" + INNER,
    "TE.CL": outer(length(4), CHUNKED) + IN_CHUNKS,
    "TE.CL with a length of nothing": outer(length(0), CHUNKED) + IN_CHUNKS,
    "CL.CL": outer(length(0), WITHIN) + INNER,
    "CL.CL the other way round": outer(WITHIN, length(0)) + INNER,
    "length and length in one": outer(length(b"0, %d" % len(INNER))) + INNER,
    "length with a sign": outer(length(b"+%d" % len(INNER))) + INNER,
    "length below nothing": outer(length(b"-1")) + INNER,
    "length in hexadecimal": outer(length(b"0x%x" % len(INNER))) + INNER,
    "length with a space": outer(length(b"%d 0" % len(INNER))) + INNER,
    "length with a fraction": outer(length(b"0.0")) + INNER,
    "length past 64 bits": outer(length(2**64 + 5)) + b"hello" + INNER,
    "length of nothing": outer(length(b"")) + INNER,
    "length in other digits": outer(length("٠".encode())) + INNER,  # noqa: RUF001 - Arabic zero.
    "length after a NUL": obscured(b"\0Content-Length: 0") + INNER,
    "length before a space": obscured(b"Content-Length : 0") + INNER,
    "length folded": obscured(b"Content-Length:\r\n %d" % len(INNER)) + INNER,
    "length behind a fold": obscured(b"X: y\r\n Content-Length: 0") + INNER,
    "length after a bare CR": obscured(b"X: y\rContent-Length: 0") + INNER,
    "length after a bare LF": obscured(b"X: y\nContent-Length: %d" % len(INNER)) + INNER,
    "length of the body, which is a request": outer(WITHIN) + INNER,
}
CHUNKS = {
    "body of one chunk": outer(CHUNKED) + IN_CHUNKS,
    "chunked twice": outer(CHUNKED, CHUNKED) + IN_CHUNKS,
    "chunked, then not": outer((b"Transfer-Encoding", b"chunked, identity")) + IN_CHUNKS,
    "not chunked, then chunked": outer((b"Transfer-Encoding", b"identity, chunked")) + IN_CHUNKS,
    "nearly chunked": outer((b"Transfer-Encoding", b"xchunked"), WITHIN) + INNER,
    "quoted": outer((b"Transfer-Encoding", b'"chunked"'), WITHIN) + INNER,
    "vertical tab": outer((b"Transfer-Encoding", b"\x0bchunked"), WITHIN) + INNER,
    "another case": outer((b"tRANSFER-eNCODING", b"cHUNKED"), length(4)) + IN_CHUNKS,
    "space before the colon": obscured(b"Transfer-Encoding : chunked") + IN_CHUNKS,
    "folded": obscured(b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4") + IN_CHUNKS,
    "after a bare LF": obscured(b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 4")
    + IN_CHUNKS,
    "HTTP/1.0": outer(CHUNKED, line=POST[:-1] + b"0") + IN_CHUNKS,
    "size in 0x": outer(CHUNKED) + b"0x0\r\n\r\n" + INNER,
    "size with a sign": outer(CHUNKED) + b"+0\r\n\r\n" + INNER,
    "size below nothing": outer(CHUNKED) + b"-1\r\n" + INNER,
    "size past 64 bits": outer(CHUNKED) + b"1%x\r\n" % 0 + b"0" * 16 + b"\r\n\r\n" + INNER,
    "size of nothing": outer(CHUNKED) + b"\r\n\r\n" + INNER,
    "size with a space": outer(CHUNKED) + b"0 5\r\n\r\n" + INNER,
    "extension": outer(CHUNKED) + b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER),
    "extension with a bare LF": outer(CHUNKED) + b"2;\nxx\r\n0\r\n\r\n" + INNER,
    "extension with a bare CR": outer(CHUNKED) + b"2;\rxx\r\n0\r\n\r\n" + INNER,
    "extension that is a request": outer(CHUNKED) + b"0;" + INNER,
    "ended by LF": outer(CHUNKED) + b"0\n\n" + INNER,
    "longer than said": outer(CHUNKED) + b"1\r\nxxxx\r\n0\r\n\r\n" + INNER,
    "trailer with a length": outer(CHUNKED) + b"0\r\nContent-Length: 0\r\n\r\n" + INNER[:0],
    "trailer that is a request": outer(CHUNKED) + b"0\r\n" + INNER,
}
LINES = {
    "bare LF throughout": outer(WITHIN).replace(b"\r\n", b"\n") + INNER,
    "bare CR throughout": outer(WITHIN).replace(b"\r\n", b"\r") + INNER,
    "no colon": obscured(b"Nonsense") + INNER,
    "space in a name": obscured(b"A B: c\r\nContent-Length: 0") + INNER,
    "NUL in a value": obscured(b"A: \0") + INNER,
    "no name": obscured(b": x") + INNER,
    "fold in the first header": POST + b"\r\n X: y\r\n\r\n" + INNER,
    "three words": b"POST / x HTTP/1.1\r\nHost: x\r\n\r\n" + INNER,
    "HTTP/0.9": b"GET /\r\n\r\n" + INNER,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + INNER,
    "HTTP/9.9": outer(WITHIN, line=POST[:-3] + b"9.9") + INNER,
    "authority": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n" + INNER,
    "asterisk": outer(WITHIN, line=b"OPTIONS * HTTP/1.1") + INNER,
    "unknown method": outer(WITHIN, line=b"SMUGGLE / HTTP/1.1") + INNER,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32 + INNER,
    "proxy protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + INNER[:0] + outer(WITHIN) + INNER,
}
UPGRADES = [
    outer((b"Connection", b"Upgrade"), (b"Upgrade", to), WITHIN, line=line)
    for to in (b"websocket", b"h2c", b"TLS/1.0")
    for line in (POST, b"GET /audio/x.mp3 HTTP/1.1")
]
# Each is refused for another reason, before or after its body is looked at.
REFUSED = {
    f"body of what is refused: {name}": Raw(target, headers, INNER, method).encoded()
    for name, target, headers, method in [
        ("no signature", INCOMING.encode(), [], b"POST"),
        ("another type", INCOMING.encode(), [*OUTER, (b"Content-Type", b"text/plain")], b"POST"),
        ("a method", INCOMING.encode(), [], b"GET"),
        ("HEAD", INCOMING.encode(), [], b"HEAD"),
        ("an address", b"/nowhere", [], b"POST"),
        ("a file", b"/audio/x.mp3", [], b"GET"),
        ("voicemail", b"/voice/voicemail/greeting", [], b"POST"),
        ("waiting for 100", INCOMING.encode(), [(b"Expect", b"100-continue")], b"POST"),
        ("a method in a header", INCOMING.encode(), [(b"X-HTTP-Method", b"POST")], b"PUT"),
    ]
}
TOO_LARGE = {
    "body of what is refused: size": Raw(
        INCOMING.encode(), [*OUTER], b"x" * 70_000 + b"\r\n" + INNER
    ).encoded()
}


@pytest.mark.parametrize(
    ("kind", "payloads"),
    [
        ("lengths", LENGTHS),
        ("chunks", CHUNKS),
        ("lines", LINES),
        ("refused", REFUSED | TOO_LARGE),
    ],
)
async def test_nothing_is_smuggled(
    edge: Edge, nats_server: NatsServer, attacks: Attacks, kind: str, payloads: dict[str, bytes]
) -> None:
    """A request inside another, between its framings or behind a broken one isn't taken."""
    for name, payload in payloads.items():
        answer = statuses(await exchange(edge.port, payload, END))
        # What follows a request that has ended for certain is a request of its own.
        attacks.count(f"smuggling: {kind}", through=200 in answer, evidence=(name, answer))
        assert 500 not in answer, name
    assert await stored(nats_server.url) == []


async def test_no_protocol_is_changed(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Who asks for another protocol is answered in this one, and what follows is no request."""
    for asked in UPGRADES:
        async with connected(edge.port) as connection:
            status = await connection.ask(asked + INNER)
            attacks.count("smuggling: upgrades", through=status not in (403, 404), evidence=status)
    assert await stored(nats_server.url) == []


@pytest.mark.parametrize(
    ("options", "to"),
    [(b"Upgrade, HTTP2-Settings", b"h2c"), (b"keep-alive, Upgrade", b"websocket")],
)
async def test_who_asks_for_another_protocol_keeps_the_body(
    edge: Edge, nats_server: NatsServer, attacks: Attacks, options: bytes, to: bytes
) -> None:
    """However the request arrives, its body is its own, and no request; the next one is taken."""
    upgrade = [(b"Connection", options), (b"Upgrade", to)]
    one, two = signed("SMone"), signed("SMtwo").encoded()
    good = replace(one, headers=[*upgrade, *one.headers]).encoded()
    bad = outer(*upgrade, WITHIN) + INNER
    for asked, body, expected in ((good, one.body, 200), (bad, INNER, 403)):
        for end in (0, len(body) - 9, len(body)):
            cut = len(asked) - end
            async with connected(edge.port) as connection:
                status = await connection.ask(asked[:cut], asked[cut:])
                attacks.count("smuggling: bodies", through=status != expected, evidence=status)
                assert await connection.ask(two) == 200
    assert statuses(await exchange(edge.port, good + good + bad, END)) == [200, 200, 403, 404]
    assert len(await stored(nats_server.url)) == 2


async def test_pipelined_requests_are_apart(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Of requests sent in one go each gets its own answer, in order; a forged one taints none."""
    forged = Raw(INCOMING.encode(), list(OUTER), b"MessageSid=SMforged").encoded()
    one, two = signed("SMone").encoded(), signed("SMtwo").encoded()
    pipeline = [one, forged, two, forged, forged, one]
    answer = statuses(await exchange(edge.port, b"".join(pipeline), END))
    attacks.count("smuggling: pipelines", through=answer.count(200) > 3, evidence=answer)
    assert answer == [200, 403, 200, 403, 403, 200, 404]
    keys = [
        JournalEvent.parse(event.headers, event.data).key for event in await stored(nats_server.url)
    ]
    assert keys == ["message:SMone", "message:SMtwo"]


async def test_what_is_no_http_comes_behind_the_answers(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Whoever is told that a request is bad can rely on it that nothing of it was stored."""
    good = signed("SMone").encoded() + signed("SMtwo").encoded()
    for kind, behind in {
        "no HTTP": b"\x16\x03\x01\r\n\r\n",
        "no address": b"CONNECT x:443 HTTP/1.1\r\n\r\n",
        "no name": b"GET / HTTP/1.1\r\n: x\r\n\r\n" + INNER,
        "no chunk": head(b"POST / HTTP/1.1", (b"Transfer-Encoding", b"chunked")) + b"no size\r\n",
        "an endless head": b"GET / HTTP/1.1\r\nx: " + b"x" * 500_000,
    }.items():
        expected = 431 if kind == "an endless head" else 400
        for pieces in ((good + behind,), (good, behind), (good + behind[:5], behind[5:], behind)):
            answer = statuses(await exchange(edge.port, *pieces))
            through = answer != [200, 200, expected]
            attacks.count(f"smuggling: behind requests: {kind}", through=through, evidence=answer)
    assert len(await stored(nats_server.url)) == 2


async def test_requests_ahead_have_a_measure(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Of thousands in one go some are taken, and the last of those ends the connection."""
    flood = Flood(edge.port)
    await flood.send(signed("SMone").encoded() * 5000)
    answer = await flood.answers()
    taken = statuses(answer)
    attacks.count("smuggling: thousands ahead", through=len(taken) > 50, evidence=len(taken))
    assert set(taken) == {200}
    assert b"\r\nconnection: close\r\n" in answer[answer.rfind(b"HTTP/1.1") :]
    assert len(await stored(nats_server.url)) == 1
