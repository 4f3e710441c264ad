"""The sandbox's webhooks are Twilio's: the fields, the signature, and how they are delivered."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox.server import RunningSandbox, running_sandbox
from tests.support.sandbox import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    CONTACT,
    OUR_NUMBER,
    PUBLIC_HOST,
    Receiver,
    running_receiver,
    sandbox_settings,
)

STATUS_CALLBACK = f"{PUBLIC_HOST}/webhook/whatsapp/status"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[RunningSandbox]:
    settings = sandbox_settings(webhook_url=receiver.base_url)
    async with running_sandbox(settings) as running:
        yield running


@pytest.fixture
async def http(sandbox: RunningSandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=10) as client:
        yield client


async def send(http: httpx.AsyncClient, callback: str | None = STATUS_CALLBACK) -> str:
    """Create a message over Twilio's API and return its SID."""
    form = {"To": CONTACT, "From": OUR_NUMBER, "Body": "Hello"}
    if callback is not None:
        form["StatusCallback"] = callback
    answer = await http.post(
        f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json",
        data=form,
        auth=(ACCOUNT_SID, AUTH_TOKEN),
    )
    assert answer.status_code == 201, answer.text
    sid: str = answer.json()["sid"]
    return sid


async def write(http: httpx.AsyncClient, **written: Any) -> dict[str, Any]:
    """Write as the contact and return what became of it."""
    answer = await http.post(f"/sandbox/contacts/{CONTACT}/messages", json=written)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def test_status_callbacks(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A message is reported sent, delivered and read, with WhatsApp's fields, validly signed."""
    sid = await send(http)
    await sandbox.settled()

    assert sorted(receiver.statuses) == ["delivered", "read", "sent"]
    for webhook in receiver.received:
        assert webhook.path == "/webhook/whatsapp/status"
        assert webhook.signed_by(AUTH_TOKEN)
        assert not webhook.signed_by("second-token")
        form = dict(webhook.form)
        status = form.pop("MessageStatus")
        assert form.pop("SmsStatus") == status
        assert form.pop("EventType", "SENT") == status.upper()
        assert form.pop("ChannelInstallSid").startswith("XE")
        assert form == {
            "MessageSid": sid,
            "SmsSid": sid,
            "AccountSid": ACCOUNT_SID,
            "From": OUR_NUMBER,
            "To": CONTACT,
            "ApiVersion": "2010-04-01",
            "ChannelPrefix": "whatsapp",
            "ChannelToAddress": "+972501234567",
        }


@pytest.mark.parametrize(
    ("given", "path", "query"),
    [
        ("/s?a=1&b=%27x%27&a=2&empty=", "/s", "a=1&b=%27x%27&a=2&empty="),
        ("/s/%2Fa?q='quoted'#rc=2&rp=all", "/s/%2Fa", "q='quoted'"),
        ("/a//b/../c#rc=2", "/a//b/../c", ""),
    ],
)
async def test_callback_address_byte_for_byte(
    sandbox: RunningSandbox,
    receiver: Receiver,
    http: httpx.AsyncClient,
    given: str,
    path: str,
    query: str,
) -> None:
    """Path and query arrive and are signed as they were given; the fragment is neither."""
    await send(http, PUBLIC_HOST + given)
    await sandbox.settled()

    assert len(receiver.received) == 3
    for webhook in receiver.received:
        assert (webhook.path, webhook.query) == (path, query)
        assert webhook.signed_by(AUTH_TOKEN)


async def test_public_host_is_matched_whole(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A callback elsewhere, even at a name that begins alike, isn't sent to the application."""
    sid = await send(http, f"{PUBLIC_HOST}.invalid/status")
    await sandbox.settled()

    assert receiver.received == []
    callbacks = [c.callbacks[0] for c in sandbox.state.messages[sid].statuses]
    assert [callback.response_status for callback in callbacks] == [None, None, None]


async def test_inbound_message(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """What a contact writes arrives with all of Twilio's fields, validly signed."""
    result = await write(http, body="Is it still free? שלום", profile_name="Dana")

    assert result["webhook_status"] == 200
    assert result["webhook_attempts"] == 1
    assert result["webhook_error"] is None
    (webhook,) = receiver.received
    assert webhook.path == "/webhook/whatsapp/incoming"
    assert webhook.signed_by(AUTH_TOKEN)
    assert dict(webhook.form) == {
        "MessageSid": result["sid"],
        "SmsSid": result["sid"],
        "SmsMessageSid": result["sid"],
        "AccountSid": ACCOUNT_SID,
        "From": CONTACT,
        "To": OUR_NUMBER,
        "Body": "Is it still free? שלום",
        "NumMedia": "0",
        "NumSegments": "1",
        "ApiVersion": "2010-04-01",
        "SmsStatus": "received",
        "WaId": "972501234567",
        "ProfileName": "Dana",
        "MessageType": "text",
        "ReferralNumMedia": "0",
    }


async def test_inbound_media(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A file comes as an address that needs Basic auth and its type."""
    await write(http, media=[{}, {"content_type": "audio/ogg"}])

    form = receiver.received[0].form
    assert (form["NumMedia"], form["MessageType"], form["Body"]) == ("2", "image", "")
    assert form["MediaContentType1"] == "audio/ogg"
    assert (await http.get(form["MediaUrl0"])).status_code == 401
    fetched = await http.get(
        form["MediaUrl0"], auth=(ACCOUNT_SID, AUTH_TOKEN), follow_redirects=True
    )
    assert fetched.content.startswith(b"\x89PNG")
    assert receiver.received[0].signed_by(AUTH_TOKEN)


async def test_inbound_without_phone(receiver: Receiver, http: httpx.AsyncClient) -> None:
    """A contact may have a user id instead of a number; anything else is refused by name."""
    answer = await http.post("/sandbox/contacts/US.13491208655302/messages", json={"body": "Hi"})
    assert answer.status_code == 200
    form = receiver.received[0].form
    assert form["From"] == "whatsapp:US.13491208655302"
    assert form["ExternalUserId"] == "US.13491208655302"
    assert "WaId" not in form

    refused = await http.post("/sandbox/contacts/0501234567/messages", json={"body": "Hi"})
    assert refused.status_code == 422
    assert "phone" in refused.text


async def test_inbound_fields_can_be_changed(receiver: Receiver, http: httpx.AsyncClient) -> None:
    """Fields can be added, repeated, replaced and left out, and are signed as sent."""
    await write(
        http,
        body="Hi",
        parameters={
            "MessageSid": None,
            "Body": "",
            "NewField": ["b", "a", "b"],
            "ChannelMetadata": '{"type":"whatsapp"}',
        },
    )

    (webhook,) = receiver.received
    assert "MessageSid" not in webhook.form
    assert webhook.form["Body"] == ""
    assert webhook.form.getlist("NewField") == ["b", "a", "b"]
    assert webhook.form["ChannelMetadata"] == '{"type":"whatsapp"}'
    assert webhook.signed_by(AUTH_TOKEN)


async def test_copies_are_one_event(receiver: Receiver, http: httpx.AsyncClient) -> None:
    """The same webhook may come often; its token tells that it is the same."""
    result = await write(http, body="Hi", copies=5)

    assert result["webhook_attempts"] == 5
    tokens = {w.headers["I-Twilio-Idempotency-Token"] for w in receiver.received}
    assert len(receiver.received) == 5
    assert len(tokens) == 1
    assert {w.form["MessageSid"] for w in receiver.received} == {result["sid"]}


async def test_lost_webhook(receiver: Receiver, http: httpx.AsyncClient) -> None:
    """A message can be known to Twilio though its webhook never came."""
    result = await write(http, body="Hi", deliver=False)

    assert receiver.received == []
    assert result["webhook_status"] is None
    (message,) = (await http.get("/sandbox/messages")).json()
    assert message["sid"] == result["sid"]


async def test_no_connection_is_retried_once() -> None:
    """When nobody listens, Twilio tries a second time and gives up."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = sandbox_settings(webhook_url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        async with running_sandbox(settings) as lonely:
            result = await write_to(lonely, "Hi")

    assert (result["webhook_status"], result["webhook_attempts"]) == (None, 2)
    assert "no connection" in result["webhook_error"]


async def test_errors_are_not_retried(receiver: Receiver, http: httpx.AsyncClient) -> None:
    """An answer, even 500, ends the delivery; it counts as not acknowledged."""
    receiver.status = 500
    result = await write(http, body="Hi")

    assert (result["webhook_status"], result["webhook_attempts"]) == (500, 1)
    assert result["webhooks"][0]["acknowledged"] is False
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("overrides", "attempts"),
    [
        ("rc=2&rp=5xx", 3),
        ("rp=ct,all", 2),
        ("rc=3&rp=4xx,rt", 1),
        ("rc=0&rp=all", 1),
        ("rc=many&rp=all", 2),
        ("rc=-1&rp=all", 2),
        ("rc=6&rp=all", 2),
    ],
)
async def test_connection_overrides(
    sandbox: RunningSandbox,
    receiver: Receiver,
    http: httpx.AsyncClient,
    overrides: str,
    attempts: int,
) -> None:
    """An address says in its fragment after what it is asked again, and how often."""
    receiver.status = 500
    sid = await send(http, f"{STATUS_CALLBACK}#{overrides}")
    await sandbox.settled()
    callbacks = [change.callbacks[0] for change in sandbox.state.messages[sid].statuses]
    assert [callback.attempts for callback in callbacks] == [attempts] * 3
    assert not any(callback.acknowledged for callback in callbacks)


async def test_silence_is_given_up(receiver: Receiver) -> None:
    """No answer in time ends the delivery without a retry."""
    receiver.silent = asyncio.Event()
    settings = sandbox_settings(webhook_url=receiver.base_url, webhook_timeout=0.2)
    async with running_sandbox(settings) as impatient:
        result = await write_to(impatient, "Hi")

    assert (result["webhook_status"], result["webhook_attempts"]) == (None, 1)
    assert "0.2 s" in result["webhook_error"]


async def write_to(sandbox: RunningSandbox, body: str) -> dict[str, Any]:
    """Write as the contact in a sandbox other than the fixture's."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        return await write(http, body=body)


async def test_forced_statuses(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """Callbacks can be forced in any order, several times over and with an error."""
    sid = await send(http)
    await sandbox.settled()
    receiver.received.clear()

    answer = await http.post(
        f"/sandbox/messages/{sid}/status", json={"status": ["read", "sent"], "copies": 2}
    )
    assert [len(change["callbacks"]) for change in answer.json()] == [2, 2]
    assert receiver.statuses == ["read", "read", "sent", "sent"]

    await http.post(
        f"/sandbox/messages/{sid}/status", json={"status": "failed", "error_code": 63016}
    )
    assert receiver.received[-1].form["ErrorCode"] == "63016"
    assert "outside the allowed window" in receiver.received[-1].form["ErrorMessage"]
    # Twilio's own record doesn't go back.
    assert sandbox.state.messages[sid].status == "read"


async def test_forcing_needs_a_callback(sandbox: RunningSandbox, http: httpx.AsyncClient) -> None:
    """An unknown message, one without a callback and an unknown status are refused clearly."""
    sid = await send(http, callback=None)
    await sandbox.settled()

    no_callback = await http.post(f"/sandbox/messages/{sid}/status", json={"status": "read"})
    unknown = await http.post("/sandbox/messages/SM1/status", json={"status": "read"})
    misspelt = await http.post(f"/sandbox/messages/{sid}/status", json={"status": "red"})
    assert [a.status_code for a in (no_callback, unknown, misspelt)] == [409, 404, 422]


async def test_messages_tell_the_story(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A conversation can be followed: each status with its time and whether it was acknowledged."""
    await write(http, body="Hi")
    receiver.status = 503
    sid = await send(http)
    await sandbox.settled()

    for contact in ("%2B972501234567", "+972501234567", CONTACT):
        inbound, outbound = (await http.get(f"/sandbox/messages?contact={contact}")).json()
        assert inbound["webhooks"][0]["acknowledged"] is True
        assert outbound["sid"] == sid
        assert [change["status"] for change in outbound["statuses"]] == [
            "sent",
            "delivered",
            "read",
        ]
        times = [change["at"] for change in outbound["statuses"]]
        assert times == sorted(times)
        assert not any(c["callbacks"][0]["acknowledged"] for c in outbound["statuses"])
    assert (await http.get("/sandbox/messages?contact=%2B97250000000")).json() == []
