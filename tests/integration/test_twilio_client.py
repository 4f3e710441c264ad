"""Twilio's REST API as the provider uses it, against the sandbox over a socket."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from sandbox.faults import ApiFault, Fault, Faults, Hang, Latency, RateLimited, Reject
from sandbox.server import RunningSandbox
from services.common.errors import UnavailableError
from services.messaging.domain.message import MessageStatus, Template
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.providers.twilio.client import TwilioProvider
from tests.support.ports import free_port
from tests.support.sandbox import OUR_NUMBER
from tests.support.sending import PHONE, now, twilio, twilio_session

ADDRESS = f"whatsapp:{PHONE}"


def claimed(body: str = "Hello", *, to: str = ADDRESS) -> ClaimedSend:
    return ClaimedSend(
        message_id="m-1",
        provider="twilio",
        contact_address=to,
        own_address=OUR_NUMBER,
        body=body,
        attempt=1,
        first_attempt_at=now(),
        last_attempt_at=now(),
        lease_until=now(),
    )


async def outcome_with(
    sandbox: RunningSandbox, faults: Faults, *, seconds: float = 30
) -> SendOutcome:
    sandbox.set_faults(faults)
    async with twilio(sandbox.base_url, seconds=seconds) as provider:
        return await provider.send(claimed())


async def test_send(sandbox: RunningSandbox) -> None:
    """A sent message carries its text unchanged and asks for callbacks that name our id."""
    body = "שלום 👋\nsecond line & more = ?"
    async with twilio(sandbox.base_url) as provider:
        outcome = await provider.send(claimed(body))
    assert outcome.kind is OutcomeKind.ACCEPTED
    [message] = sandbox.state.messages.values()
    assert outcome.provider_message_id == message.sid
    assert (message.sender, message.recipient, message.body) == (OUR_NUMBER, ADDRESS, body)
    assert message.status_callback == "http://127.0.0.1:9/webhook/whatsapp/status?message=m-1"


async def test_media(sandbox: RunningSandbox) -> None:
    """A file goes by its address, with or without a caption."""
    files = ("https://files.example.com/plan.pdf",)
    async with twilio(sandbox.base_url) as provider:
        for body in ("", "The plan"):
            outcome = await provider.send(replace(claimed(body), media_urls=files))
            assert outcome.kind is OutcomeKind.ACCEPTED
    sent = list(sandbox.state.messages.values())
    assert [(one.body, len(one.media)) for one in sent] == [("", 1), ("The plan", 1)]


async def test_template(sandbox: RunningSandbox) -> None:
    """A template goes by its id and its variables as JSON, without a text of its own."""
    template = Template("HX" + "0" * 32, {"1": "דנה", "2": 'with "quotes"'})
    async with twilio(sandbox.base_url) as provider:
        outcome = await provider.send(replace(claimed(""), template=template))
    assert outcome.kind is OutcomeKind.ACCEPTED
    [message] = sandbox.state.messages.values()
    assert message.content_sid == template.id
    assert message.body == f'Template {template.id} 1=דנה 2=with "quotes"'


@pytest.mark.parametrize(
    ("faults", "kind", "code", "sent"),
    [
        (Faults(reject=Reject(error_code=21211)), OutcomeKind.REJECTED, "21211", 0),
        (Faults(reject=Reject(error_code=63016)), OutcomeKind.REJECTED, "63016", 0),
        (Faults(reject=Reject(error_code=63018)), OutcomeKind.RETRY, "63018", 0),
        (Faults(reject=Reject(error_code=21611)), OutcomeKind.RETRY, "21611", 0),
        (Faults(rate_limited=RateLimited(retry_after=None)), OutcomeKind.RETRY, "20429", 0),
        (Faults(error_500=ApiFault()), OutcomeKind.UNKNOWN, "20500", 0),
        (Faults(error_500_after_accept=Fault()), OutcomeKind.UNKNOWN, "20500", 1),
        (Faults(reset_after_accept=Fault()), OutcomeKind.UNKNOWN, "no_answer", 1),
    ],
)
async def test_refusals_and_faults(
    sandbox: RunningSandbox, faults: Faults, kind: OutcomeKind, code: str, sent: int
) -> None:
    """Each failure of Twilio has the outcome of the table, after exactly one request."""
    outcome = await outcome_with(sandbox, faults)
    assert (outcome.kind, outcome.error_code) == (kind, code)
    assert outcome.error_message
    assert len(sandbox.state.messages) == sent
    assert len(sandbox.state.requests) == 1


@pytest.mark.parametrize("accept", [False, True])
async def test_silence_is_unknown(sandbox: RunningSandbox, accept: bool) -> None:
    """A request that gets no answer ends in time, as unknown, and isn't repeated."""
    outcome = await outcome_with(sandbox, Faults(hang=Hang(accept=accept)), seconds=2)
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.UNKNOWN, "no_answer")
    assert len(sandbox.state.messages) == accept


async def test_late_answer_is_unknown(sandbox: RunningSandbox) -> None:
    """An answer that comes after the timeout doesn't count."""
    outcome = await outcome_with(sandbox, Faults(latency=Latency(seconds=2.2)), seconds=2)
    assert outcome.kind is OutcomeKind.UNKNOWN


async def test_retry_after(sandbox: RunningSandbox) -> None:
    """Twilio's wish for a pause is passed on."""
    outcome = await outcome_with(sandbox, Faults(rate_limited=RateLimited(retry_after=7)))
    assert outcome.retry_after == timedelta(seconds=7)


async def test_wrong_credentials_wait(sandbox: RunningSandbox) -> None:
    """With wrong credentials messages wait to be sent, for someone will mend them."""
    async with twilio(sandbox.base_url, token="wrong") as provider:
        outcome = await provider.send(claimed())
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, "20003")
    assert outcome.retry_after == timedelta(seconds=60)


async def test_no_connection_is_certain() -> None:
    """Nothing was sent when the host is unknown, refuses, or speaks no TLS."""
    port = free_port()
    server = await asyncio.start_server(_speak_no_tls, "127.0.0.1", 0)
    plain = server.sockets[0].getsockname()[1]
    async with server:
        for base_url in (
            "http://switchboard.invalid",
            f"http://127.0.0.1:{port}",
            f"https://127.0.0.1:{plain}",
        ):
            async with twilio(base_url) as provider:
                outcome = await provider.send(claimed())
            assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, "no_connection")


async def _speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\nnot json",
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 201 Created\r\nContent-Length: 14\r\n\r\n{"sid": "\\u0000',
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_answers_that_are_not_twilios(answer: bytes) -> None:
    """An answer that Twilio wouldn't give leaves the outcome unknown."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with twilio(base_url) as provider:
            outcome = await provider.send(claimed())
            assert outcome.kind is OutcomeKind.UNKNOWN
            with pytest.raises(UnavailableError):
                await provider.sent_messages(
                    contact_address=ADDRESS, own_address=OUR_NUMBER, since=now()
                )


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
async def test_what_twilio_says_of_its_clock_spoils_no_send(zone: str) -> None:
    """A date whose zone is "-0000" is UTC: the send ends, and is not one of unknown outcome."""
    taken = json.dumps({"sid": "SM" + "0" * 32, "status": "queued"}).encode()
    times = {"ahead": now() - timedelta(minutes=10), "later": now() + timedelta(seconds=100)}
    dates = {name: f"{time:%a, %d %b %Y %H:%M:%S} {zone}" for name, time in times.items()}
    answers = [
        ("201 Created", f"Date: {dates['ahead']}", taken),
        ("429 Too Many Requests", f"Retry-After: {dates['later']}", b"{}"),
    ]

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status, header, body = answers.pop(0)
        size = f"Content-Length: {len(body)}\r\nConnection: close"
        head = f"HTTP/1.1 {status}\r\n{header}\r\n{size}\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with twilio_session(base_url) as session:
            provider = TwilioProvider(session, public_host=base_url)
            sent = await provider.send(claimed())
            ahead = session.transport.clock_ahead
            refused = await provider.send(claimed())
    assert sent.kind is OutcomeKind.ACCEPTED
    assert timedelta(minutes=10) <= ahead < timedelta(minutes=11)
    assert refused.retry_after is not None
    assert timedelta(seconds=40) < refused.retry_after <= timedelta(seconds=100)


async def test_sent_messages(sandbox: RunningSandbox) -> None:
    """The list holds what went to this contact, oldest first, over all pages, with its status."""
    since = now()
    async with twilio(sandbox.base_url) as provider:
        sids = []
        for number in range(105):
            outcome = await provider.send(claimed(str(number)))
            sids.append(outcome.provider_message_id)
        await provider.send(claimed("to another", to="whatsapp:+15550001111"))
        await sandbox.settled()
        listed = await provider.sent_messages(
            contact_address=ADDRESS, own_address=OUR_NUMBER, since=since
        )
        assert {one.provider_message_id for one in listed} == set(sids)
        assert len(listed) == 105
        assert {one.status for one in listed} == {MessageStatus.READ}
        assert [one.created_at for one in listed] == sorted(one.created_at for one in listed)
        later = await provider.sent_messages(
            contact_address=ADDRESS, own_address=OUR_NUMBER, since=now() + timedelta(hours=1)
        )
        assert later == []


async def test_list_that_fails_proves_nothing(sandbox: RunningSandbox) -> None:
    """When Twilio doesn't list its messages, that is an error and not an empty list."""
    async with twilio(sandbox.base_url, seconds=0.3) as provider:
        for faults in (
            Faults(error_500=ApiFault(on="read")),
            Faults(rate_limited=RateLimited(on="read")),
            Faults(hang=Hang(on="read")),
        ):
            sandbox.set_faults(faults)
            with pytest.raises(UnavailableError):
                await provider.sent_messages(
                    contact_address=ADDRESS, own_address=OUR_NUMBER, since=now()
                )
