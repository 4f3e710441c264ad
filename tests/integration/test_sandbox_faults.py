"""Every switch of the sandbox does what it says, as often as it says."""

import asyncio
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

MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"


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
    async with httpx.AsyncClient(
        base_url=sandbox.base_url, auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=10
    ) as client:
        yield client


async def switch(http: httpx.AsyncClient, **faults: Any) -> None:
    answer = await http.put("/sandbox/faults", json=faults)
    assert answer.status_code == 200, answer.text


async def send(http: httpx.AsyncClient, **fields: str) -> httpx.Response:
    form = {
        "To": CONTACT,
        "From": OUR_NUMBER,
        "Body": "Hello",
        "StatusCallback": f"{PUBLIC_HOST}/status",
    }
    return await http.post(MESSAGES, data=form | fields)


async def test_rate_limited(sandbox: RunningSandbox, http: httpx.AsyncClient) -> None:
    """429 with Retry-After, as often as asked, and no message for it."""
    await switch(http, rate_limited={"times": 2, "retry_after": 7})

    for _ in range(2):
        answer = await send(http)
        assert (answer.status_code, answer.json()["code"]) == (429, 20429)
        assert answer.headers["Retry-After"] == "7"
    assert not sandbox.state.messages
    assert (await send(http)).status_code == 201


async def test_error_before_accepting(sandbox: RunningSandbox, http: httpx.AsyncClient) -> None:
    """A 500 that means no message; it can strike reading instead."""
    await switch(http, error_500={"times": 1})
    assert (await http.get(MESSAGES)).status_code == 200
    assert (await send(http)).status_code == 500
    assert not sandbox.state.messages

    await switch(http, error_500={"times": 1, "on": "read"})
    assert (await send(http)).status_code == 201
    assert (await http.get(MESSAGES)).status_code == 500
    assert (await http.get(MESSAGES)).status_code == 200


async def test_error_after_accepting(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A 500 though the message goes out: listing finds it and callbacks come."""
    await switch(http, error_500_after_accept={"times": 1})

    answer = await send(http)
    assert (answer.status_code, answer.json()["code"]) == (500, 20500)
    (message,) = (await http.get(MESSAGES, params={"To": CONTACT})).json()["messages"]
    await sandbox.settled()
    assert {webhook.form["MessageSid"] for webhook in receiver.received} == {message["sid"]}


async def test_reset_after_accepting(sandbox: RunningSandbox, http: httpx.AsyncClient) -> None:
    """The connection breaks without an answer, but the message was accepted."""
    await switch(http, reset_after_accept={"times": 1})

    with pytest.raises(httpx.ReadError):
        await send(http)
    (message,) = sandbox.state.messages.values()
    await sandbox.settled()
    assert message.status == "read"
    assert (await send(http)).status_code == 201


@pytest.mark.parametrize("accept", [False, True])
async def test_hang(
    sandbox: RunningSandbox,
    http: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    accept: bool,
) -> None:
    """No answer ever comes; the message was accepted or not, as asked. Giving up is no error."""
    await switch(http, hang={"times": 1, "accept": accept})

    with pytest.raises(httpx.ReadTimeout):
        await http.post(
            MESSAGES,
            data={"To": CONTACT, "From": OUR_NUMBER, "Body": "Hello"},
            timeout=httpx.Timeout(30, read=2),
        )
    assert len(sandbox.state.messages) == accept
    assert (await send(http)).status_code == 201
    assert [record.status for record in sandbox.state.requests] == [None, 201]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_hanging_requests_end_with_the_sandbox(receiver: Receiver) -> None:
    """A client that waits for ever doesn't keep the sandbox from stopping."""
    settings = sandbox_settings(webhook_url=receiver.base_url)
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60) as http:
        async with running_sandbox(settings) as sandbox:
            http.base_url = httpx.URL(sandbox.base_url)
            await switch(http, hang={})
            waiting = asyncio.create_task(send(http))
            while not sandbox.state.requests:  # noqa: ASYNC110 - Nothing tells of a request.
                await asyncio.sleep(0.01)
        with pytest.raises(httpx.ReadError):
            await waiting


async def test_latency(http: httpx.AsyncClient) -> None:
    """Answers take their time, and then come."""
    await switch(http, latency={"seconds": 0.3, "times": 1})

    with pytest.raises(httpx.ReadTimeout):
        await http.post(MESSAGES, data={}, timeout=httpx.Timeout(30, read=0.1))
    assert (await send(http)).status_code == 201
    await switch(http, latency={"seconds": 0.01})
    assert (await send(http)).status_code == 201


async def test_reject(sandbox: RunningSandbox, http: httpx.AsyncClient) -> None:
    """Any error code of Twilio's can be had."""
    await switch(http, reject={"error_code": 21610, "times": 1})

    answer = await send(http)
    assert (answer.status_code, answer.json()["code"]) == (400, 21610)
    assert answer.json()["message"] == "Attempt to send to unsubscribed recipient"
    assert not sandbox.state.messages


async def test_failed_messages(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A message is accepted and then fails, with its reason in callback and resource."""
    await switch(http, failed_messages={"error_code": 63016, "times": 1})

    sid = (await send(http)).json()["sid"]
    await sandbox.settled()
    (webhook,) = receiver.received
    assert webhook.form["MessageStatus"] == "failed"
    assert webhook.form["ErrorCode"] == "63016"
    assert webhook.signed_by(AUTH_TOKEN)
    message = (await http.get(MESSAGES.replace(".json", f"/{sid}.json"))).json()
    assert (message["status"], message["error_code"]) == ("failed", 63016)
    assert "Message Template" in message["error_message"]


async def test_undelivered_messages(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A message may be sent and yet not arrive."""
    await switch(http, failed_messages={"status": "undelivered", "error_code": 63003})

    await send(http)
    await sandbox.settled()
    assert sorted(receiver.statuses) == ["sent", "undelivered"]


async def test_no_callbacks(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A message is read, and nobody tells."""
    await switch(http, no_callbacks={"times": 1})

    sid = (await send(http)).json()["sid"]
    await sandbox.settled()
    assert receiver.received == []
    assert sandbox.state.messages[sid].status == "read"


async def test_duplicate_callbacks(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """Each callback comes several times over."""
    await switch(http, duplicate_callbacks={"copies": 3})

    await send(http)
    await sandbox.settled()
    assert sorted(receiver.statuses) == sorted(["sent", "delivered", "read"] * 3)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, ["read", "delivered", "sent"]),
        (["delivered", "read", "sent"], ["delivered", "read", "sent"]),
        (["read"], ["read", "sent", "delivered"]),
    ],
)
async def test_reordered_callbacks(
    sandbox: RunningSandbox,
    receiver: Receiver,
    http: httpx.AsyncClient,
    order: list[str] | None,
    expected: list[str],
) -> None:
    """Callbacks come in the order asked for, backwards by default."""
    await switch(http, reordered_callbacks={"order": order})

    await send(http)
    await sandbox.settled()
    assert receiver.statuses == expected


async def test_early_callbacks(
    sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """A callback is there before the create call has returned."""
    await switch(http, early_callbacks={"statuses": ["sent", "delivered"], "times": 1})

    answer = await send(http)
    assert receiver.statuses == ["sent", "delivered"]
    assert receiver.received[0].form["MessageSid"] == answer.json()["sid"]
    assert answer.json()["status"] == "queued"
    await sandbox.settled()
    assert receiver.statuses == ["sent", "delivered", "read"]


async def test_window(receiver: Receiver) -> None:
    """Where the 24-hour window is enforced, only a template reaches who hasn't written."""
    settings = sandbox_settings(webhook_url=receiver.base_url, enforce_window=True)
    async with (
        running_sandbox(settings) as strict,
        httpx.AsyncClient(
            base_url=strict.base_url, auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60
        ) as http,
    ):
        outside = (await send(http)).json()["sid"]
        template = (await send(http, ContentSid="HX" + "0" * 32)).json()["sid"]
        await http.post(f"/sandbox/contacts/{CONTACT}/messages", json={"body": "Hi"})
        inside = (await send(http)).json()["sid"]
        await strict.settled()
        messages = strict.state.messages
        assert (messages[outside].status, messages[outside].error_code) == ("failed", 63016)
        assert [messages[sid].status for sid in (template, inside)] == ["read", "read"]


async def test_switches_are_typed(http: httpx.AsyncClient) -> None:
    """A misspelt switch or setting is refused by its name, and nothing changes."""
    for wrong, name in [
        ({"latencyy": {"seconds": 1}}, "latencyy"),
        ({"latency": {"second": 1}}, "second"),
        ({"latency": {"seconds": -1}}, "seconds"),
        ({"error_500": {"times": 0}}, "times"),
        ({"hang": {"accept": True, "on": "any"}}, "accept"),
        ({"early_callbacks": {"statuses": ["red"]}}, "statuses"),
    ]:
        answer = await http.put("/sandbox/faults", json=wrong)
        assert answer.status_code == 422
        assert name in answer.text
    assert not any((await http.get("/sandbox/faults")).json().values())


async def test_switches_count_down_and_clear(http: httpx.AsyncClient) -> None:
    """What is left of a switch can be read; used up or cleared, it is off."""
    await switch(http, error_500={"times": 2}, no_callbacks={})
    await send(http)
    now = (await http.get("/sandbox/faults")).json()
    assert now["error_500"]["times"] == 1
    assert now["no_callbacks"] == {"times": None}

    await send(http)
    now = (await http.get("/sandbox/faults")).json()
    assert now["error_500"] is None
    assert now["no_callbacks"] is not None
    assert not any((await http.delete("/sandbox/faults")).json().values())


async def test_reset(sandbox: RunningSandbox, receiver: Receiver, http: httpx.AsyncClient) -> None:
    """After a reset nothing is left, and nothing more comes."""
    await send(http)
    await switch(http, error_500={})
    assert (await http.post("/sandbox/reset")).json() == {"status": "ok", "messages": 0}
    receiver.received.clear()
    await sandbox.settled()

    assert receiver.received == []
    for path in ("messages", "requests", "openai/requests"):
        assert (await http.get(f"/sandbox/{path}")).json() == []
    assert not any((await http.get("/sandbox/faults")).json().values())


async def test_request_log(http: httpx.AsyncClient) -> None:
    """Requests to the pretend services are listed with what they were answered."""
    await send(http)
    await http.get(MESSAGES, params={"PageSize": "1"}, auth=("AC0", "wrong"))

    log = (await http.get("/sandbox/requests")).json()
    assert [(r["method"], r["path"], r["query"], r["status"]) for r in log] == [
        ("POST", MESSAGES, "", 201),
        ("GET", MESSAGES, "PageSize=1", 401),
    ]
