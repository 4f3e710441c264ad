"""The edge over HTTP, with a real NATS behind it and webhooks signed by Twilio's SDK."""

import asyncio
import gc
import hashlib
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from switchboard.events.v1 import events_pb2
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.common.journal.events import JournalEvent
from services.common.tracing import sent_traceparent
from tests.support.edge import (
    FORM,
    INCOMING,
    PUBLIC_HOST,
    STATUS,
    TOKEN,
    Edge,
    journal_client,
    message,
    running_edge,
    signature,
    stored,
    until,
)
from tests.support.nats import NatsServer
from tests.support.raw_http import connected, head, signed


@pytest.fixture
async def edge(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Edge]:
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db", failures_per_minute=3, read_seconds=1) as edge,
    ):
        yield edge


async def journal(server: NatsServer) -> list[tuple[JournalEvent, events_pb2.WebhookReceived]]:
    events = [JournalEvent.parse(m.headers, m.data) for m in await stored(server.url)]
    return [(event, events_pb2.WebhookReceived.FromString(event.data)) for event in events]


async def test_a_message_is_journaled_as_it_came(edge: Edge, nats_server: NatsServer) -> None:
    """200 with empty TwiML, and one event with every parameter, the unknown ones too."""
    parameters = message("SM1", SomethingNew="כן & no", Empty="")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await edge.post(
        INCOMING + "?tenant=a%20b",
        parameters,
        {"traceparent": trace, "I-Twilio-Idempotency-Token": "token-1"},
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/xml")
    assert response.text == '<?xml version="1.0" encoding="UTF-8"?><Response/>'
    [(event, received)] = await journal(nats_server)
    assert (event.key, event.source, event.traceparent) == ("message:SM1", INCOMING, trace)
    assert [(p.name, p.value) for p in received.parameters] == list(parameters.items())
    assert [(p.name, p.value) for p in received.query_parameters] == [("tenant", "a b")]
    assert (received.provider, received.idempotency_token) == ("twilio", "token-1")
    assert received.received_at.ToDatetime() == event.time.replace(tzinfo=None)


async def test_statuses_have_their_own_keys(edge: Edge, nats_server: NatsServer) -> None:
    """Each status of a message is an event, and its error belongs to its key."""
    for status in ({"MessageStatus": "sent"}, {"MessageStatus": "failed", "ErrorCode": "30001"}):
        assert (await edge.post(STATUS, {"MessageSid": "SM1", **status})).status_code == 200
    assert (await edge.post(STATUS, {"SmsSid": "SM2", "SmsStatus": "read"})).status_code == 200
    assert [event.key for event, _ in await journal(nats_server)] == [
        "status:SM1:sent",
        "status:SM1:failed:30001",
        "status:SM2:read",
    ]


async def test_the_same_webhook_a_hundred_times(edge: Edge, nats_server: NatsServer) -> None:
    """All are answered 200, and the journal holds one event."""
    responses = await asyncio.gather(*(edge.post(INCOMING, message("SM1")) for _ in range(100)))
    assert {response.status_code for response in responses} == {200}
    assert len(await journal(nats_server)) == 1


async def test_a_missing_signature_is_400(edge: Edge, nats_server: NatsServer) -> None:
    """A request without the header is none of Twilio's."""
    response = await edge.http.post(
        INCOMING, content=urlencode(message("SM1")), headers={"content-type": FORM}
    )
    assert response.status_code == 400
    assert "X-Twilio-Signature" in response.text
    assert await journal(nats_server) == []
    assert edge.count("missing_signature") == 1


@pytest.mark.parametrize("part", ["token", "body", "path", "query"])
async def test_a_wrong_signature_is_403(edge: Edge, nats_server: NatsServer, part: str) -> None:
    """The signature covers the key, the body, the path and the query."""
    signed = message("SM1")
    wrong = signature(
        {"path": STATUS, "query": INCOMING + "?a=1"}.get(part, INCOMING),
        signed | {"Body": "other"} if part == "body" else signed,
        "another-token" if part == "token" else "a-test-token",
    )
    response = await edge.post(INCOMING, signed, {"x-twilio-signature": wrong})
    assert response.status_code == 403
    assert await journal(nats_server) == []
    assert edge.count("invalid_signature") == 1


async def test_many_wrong_signatures_are_limited_and_valid_ones_pass(edge: Edge) -> None:
    """Over the limit a sender gets 429 for refused requests, never for a valid one."""
    bad = {"x-twilio-signature": "bad"}
    codes = [(await edge.post(INCOMING, message("SM1"), bad)).status_code for _ in range(5)]
    assert codes == [403, 403, 403, 429, 429]
    limited = await edge.post(INCOMING, message("SM1"), bad)
    assert 0 < int(limited.headers["retry-after"]) <= 61
    assert (await edge.post(INCOMING, message("SM1"))).status_code == 200
    assert edge.count("rate_limited") == 3


async def test_a_sender_behind_a_trusted_proxy_is_limited_alone(edge: Edge) -> None:
    """Refusals of one sender don't count for another that comes through the same proxy."""
    for sender, codes in (("192.0.2.1", [403, 403, 403, 429]), ("192.0.2.2", [403])):
        bad = {"x-twilio-signature": "bad", "x-forwarded-for": sender}
        answers = [await edge.post(INCOMING, message("SM1"), bad) for _ in codes]
        assert [answer.status_code for answer in answers] == codes


async def test_a_sender_has_no_name_in_a_trailer(edge: Edge) -> None:
    """Which a proxy may hand on as it came."""
    forged = head(
        b"POST " + INCOMING.encode() + b" HTTP/1.1",
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"X-Twilio-Signature", b"bad"),
        (b"Transfer-Encoding", b"chunked"),
    )
    codes = []
    async with connected(edge.port) as connection:
        for number in range(4):
            trailer = b"X-Forwarded-For: 192.0.2.1%d\r\n\r\n" % number
            codes.append(await connection.ask(forged + b"0\r\n" + trailer))
    assert codes == [403, 403, 403, 429]


@pytest.mark.parametrize("declared", [True, False])
async def test_an_oversized_body_is_413(edge: Edge, declared: bool) -> None:
    """More than 64 KiB is refused, whether the length was announced or not."""
    body = urlencode({"MessageSid": "SM1", "Body": "x" * 70_000}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    response = await edge.http.post(
        INCOMING,
        content=body if declared else chunks(),
        headers={"content-type": FORM, "x-twilio-signature": "any"},
    )
    assert response.status_code == 413
    assert edge.count("too_large") == 1


async def test_a_body_that_trickles_in_is_408(edge: Edge) -> None:
    """A sender can't hold a request open for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(
        f"POST {INCOMING} HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\n"
        "X-Twilio-Signature: any\r\nContent-Length: 100\r\n\r\nBody=".encode()
    )
    assert b" 408 " in await asyncio.wait_for(reader.readline(), timeout=60)
    writer.close()
    await writer.wait_closed()
    assert edge.count("too_slow") == 1


async def test_a_sender_who_hangs_up_stores_nothing(edge: Edge, nats_server: NatsServer) -> None:
    """Half a request is no event."""
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    body = urlencode(message("SM1"))
    writer.write(
        f"POST {INCOMING} HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nX-Twilio-Signature: "
        f"{signature(INCOMING, message('SM1'))}\r\nContent-Length: {len(body)}\r\n\r\n"
        f"{body[:-1]}".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await until(lambda: edge.count("disconnected") == 1)
    assert await journal(nats_server) == []


async def test_other_methods_and_paths(edge: Edge) -> None:
    """A wrong method says which one is right; an unknown address is 404."""
    response = await edge.http.get(INCOMING)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert (await edge.http.post("/webhook/whatsapp/other")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/api", 404, "NOT_FOUND"),
        ("GET", "/nope", 404, "NOT_FOUND"),
        ("POST", "/webhook/x", 404, "NOT_FOUND"),
        ("POST", "/audio/x.mp3", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/voice/voicemail/greeting?turn=0", 400, "INVALID_INPUT"),
    ],
)
async def test_what_is_not_there_is_a_problem_document(
    edge: Edge, method: str, path: str, status: int, reason: str
) -> None:
    """As every error of the API: with a word for programs, and the request's id."""
    response = await edge.http.request(method, path)
    document = response.json()
    assert (response.status_code, document["status"], document["reason"]) == (
        status, status, reason,
    )  # fmt: skip
    assert response.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == response.headers["x-request-id"]


async def test_json_is_415(edge: Edge) -> None:
    """A body that is no form is refused by its type, even when it is signed."""
    body = b'{"MessageSid": "SM1"}'
    target = f"{INCOMING}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    response = await edge.http.post(
        target,
        content=body,
        headers={
            "content-type": "application/json",
            "x-twilio-signature": signature(target, {}),
        },
    )
    assert response.status_code == 415
    assert FORM in response.text


@pytest.mark.parametrize(
    ("target", "parameters", "field"),
    [
        (INCOMING, {"Body": "hello"}, "MessageSid"),
        (INCOMING, {"MessageSid": "", "Body": "hello"}, "MessageSid"),
        (STATUS, {"MessageStatus": "sent"}, "MessageSid"),
        (STATUS, {"MessageSid": "SM1"}, "MessageStatus"),
    ],
)
async def test_what_cannot_be_identified_is_400(
    edge: Edge, nats_server: NatsServer, target: str, parameters: dict[str, str], field: str
) -> None:
    """A signed webhook without its id is refused by name, so that nobody takes it for stored."""
    response = await edge.post(target, parameters)
    assert response.status_code == 400
    assert field in response.text
    assert await journal(nats_server) == []


async def test_ten_thousand_parameters_are_400(edge: Edge) -> None:
    """Refused with the limit in the text, before any of them is looked at."""
    body = "&".join(["a="] * 10_000)
    response = await edge.http.post(
        INCOMING, content=body, headers={"content-type": FORM, "x-twilio-signature": "any"}
    )
    assert response.status_code == 400
    assert "1000 parameters" in response.text


async def test_text_that_no_store_could_hold(edge: Edge, nats_server: NatsServer) -> None:
    """NUL goes, bytes that aren't UTF-8 become U+FFFD, and the rest of the text stays."""
    # Twilio's SDK can't sign such bytes; they are signed as they stand.
    signed = f"{PUBLIC_HOST}{INCOMING}Body".encode() + b"a\xed\xa0\x80b\0c" + b"MessageSidSM1"
    mac = b64encode(hmac.digest(TOKEN.encode(), signed, "sha1")).decode()
    response = await edge.http.post(
        INCOMING,
        content=b"MessageSid=SM1&Body=a%ED%A0%80b%00c",
        headers={"content-type": FORM, "x-twilio-signature": mac},
    )
    assert response.status_code == 200
    [(_, received)] = await journal(nats_server)
    assert received.parameters[1].value == "a\ufffd\ufffd\ufffdbc"


async def test_an_absurdly_long_id_still_identifies(edge: Edge, nats_server: NatsServer) -> None:
    """It is hashed into the key, so that a repetition is still noticed."""
    for sid in ("S" * 5000, "S" * 5000, "S" * 4999, "שלום"):
        assert (await edge.post(INCOMING, message(sid))).status_code == 200
    keys = [event.key for event, _ in await journal(nats_server)]
    assert len(keys) == len(set(keys)) == 3
    assert all(len(key) < 100 for key in keys)


@pytest.mark.parametrize("trace", ["nonsense", f"00-{'0' * 32}-{'1' * 16}-01", "x" * 5000])
async def test_a_bad_traceparent_is_replaced(
    edge: Edge, nats_server: NatsServer, trace: str
) -> None:
    """What isn't a trace context by W3C's rules never reaches the journal."""
    assert (await edge.post(INCOMING, message("SM1"), {"traceparent": trace})).status_code == 200
    [(event, _)] = await journal(nats_server)
    assert event.traceparent != trace
    assert sent_traceparent(event.traceparent) == event.traceparent


@pytest.mark.parametrize("kind", ["stored", "forged", "unsigned", "gone", "ahead"])
async def test_a_request_is_freed_without_the_collector(edge: Edge, kind: str) -> None:
    """It comes seldom, and a flood of them would take its memory until then."""

    def requests() -> int:
        return sum(isinstance(one, RequestResponseCycle) for one in gc.get_objects())

    request = signed("SM1")
    if kind == "forged":
        request.headers[1] = (b"X-Twilio-Signature", b"A" * 28)
    elif kind == "unsigned":
        del request.headers[1]
    gc.collect()
    gc.disable()
    try:
        before = requests()
        for _ in range(20):
            if kind == "gone":
                _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
                writer.write(request.encoded())
                writer.close()
                await writer.wait_closed()
                continue
            # Nobody has begun with the last two when the connection is closed for the last.
            broken = head(b"POST / HTTP/1.1", (b"Transfer-Encoding", b"chunked")) + b"no size\r\n"
            more = request.encoded() + broken if kind == "ahead" else b""
            async with connected(edge.port) as connection:
                await connection.ask(request.encoded() + more)
        await until(lambda: requests() <= before, 5)
    finally:
        gc.enable()
