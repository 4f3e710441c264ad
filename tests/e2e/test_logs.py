"""What a full run leaves in logs, metrics and names of subjects: its ids, and nothing personal."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import nats
import pytest
from twilio.request_validator import (  # type: ignore[import-untyped]  # has no types
    RequestValidator,
)

from services.common.journal.dead import DeadLetterStream
from services.common.journal.events import EventKind
from services.common.journal.streams import DEAD_STREAM
from tests.support.attacks import Attacks
from tests.support.injections import ELSEWHERE, INJECTIONS, MARK
from tests.support.stack import API_KEY, RunningStack, running_stack

CONTACT = "+972501234567"
STRANGER = "+972509999111"
WICKED = "+972509999222"
TEXT = "Is the flat in Haifa still free?"
SAID = "When are you open on Friday?"
ANSWER = "Yes, it is."
WRONG_KEY = "somebody-elses-api-key"
WRONG_SIGNATURE = base64.b64encode(b"no signature at all.").decode()
SERVICES = ("webhook", "messaging", "health")
_SECONDS = 120


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The system, without a collector of traces, telling all that it ever tells."""
    with running_stack(tmp_path_factory.mktemp("logs"), {"LOG_LEVEL": "debug"}) as stack:
        yield stack


def lines(stack: RunningStack, service: str, **wanted: str) -> list[dict[str, Any]]:
    """The lines of a log that say this, once there are any.

    Raises:
        AssertionError: There are none in time.
    """
    deadline = time.monotonic() + _SECONDS
    while True:
        # The last line may be only half written.
        whole = stack.log(service, last=None).splitlines(keepends=True)
        found = [json.loads(line) for line in whole if line.endswith("\n")]
        matching = [one for one in found if wanted.items() <= one.items()]
        if matching:
            return matching
        assert time.monotonic() < deadline, (service, wanted, found[-20:])
        time.sleep(0.1)


def writes(stack: RunningStack, contact: str, body: str) -> None:
    """A contact writes."""
    path = f"/sandbox/contacts/{contact}/messages"
    assert stack.sandbox.post(path, json={"body": body}).json()["webhook_status"] == 200


def test_one_id_from_a_webhook_to_the_provider(stack: RunningStack) -> None:
    """Edge, journal, assistant, outbox and the provider's call: each line bears the same id."""
    writes(stack, CONTACT, TEXT)
    own_id = lines(stack, "webhook", event="webhook stored", route="whatsapp_incoming")[-1][
        "request_id"
    ]
    assert re.fullmatch(r"[0-9a-f]{32}", own_id)
    for event in ("answered", "a message was sent"):
        lines(stack, "messaging", event=event, request_id=own_id)


def test_an_id_outlives_messaging(stack: RunningStack) -> None:
    """What the API gave an id is sent under it, also by a process that came after."""
    # Only who has written may be written to; and the fault is not for the assistant's answer.
    writes(stack, CONTACT, TEXT)
    stored = lines(stack, "webhook", event="webhook stored", route="whatsapp_incoming")[-1]
    lines(stack, "messaging", event="a message was sent", request_id=stored["request_id"])
    stack.faults(rate_limited={"times": 1, "retry_after": 3})
    sent = stack.api.post("/api/whatsapp/send", json={"to": CONTACT, "body": ANSWER})
    own_id = sent.raise_for_status().headers["x-request-id"]
    lines(stack, "webhook", event="API request", request_id=own_id)
    lines(stack, "messaging", event="a message was not sent", request_id=own_id)
    with stack.away("messaging"):
        pass
    stack.until_messaging_is_found()
    lines(stack, "messaging", event="a message was sent", request_id=own_id)


def test_a_clients_own_trace_goes_on(stack: RunningStack) -> None:
    """Whoever sends a traceparent finds its trace id in our logs, and every error names it."""
    theirs = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{theirs}-b7ad6b7169203331-01"}
    answer = stack.api.get("/api/whatsapp/messages/none", headers=headers)
    assert answer.status_code == 404
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == theirs
    lines(stack, "webhook", event="API request", request_id=theirs)


def test_nothing_personal_is_told(stack: RunningStack) -> None:
    """Messages, calls, a send that fails, forged webhooks, wrong keys and a dead letter: no
    number, text, key, token or signature of them is in any log, metric or subject."""
    signed = _signed(stack, {"MessageSid": "SMbad", "From": f"who? {STRANGER}", "Body": TEXT})
    assert signed.status_code == 200
    assert _forged(stack, {"MessageSid": "SM1", "From": CONTACT, "Body": TEXT}).status_code == 403
    denied = httpx.get(
        f"{stack.addresses.webhook}/api/whatsapp/conversation/{CONTACT}",
        headers={"x-api-key": WRONG_KEY},
        trust_env=False,
    )
    assert denied.status_code == 401
    # Twilio's refusal quotes the number.
    stack.faults(reject={"times": 1, "error_code": 21211})
    writes(stack, STRANGER, TEXT)
    lines(stack, "messaging", event="a message was not sent", error_code="21211")
    stack.faults(speech={"times": 1})
    assert stack.call(SAID)["status"] == "completed"
    lines(stack, "messaging", event="event moved to the dead stream")
    subjects, reasons = asyncio.run(_in_nats(stack.addresses.nats_url))
    assert {one for one in subjects if not one.startswith("dead.")} <= {
        kind.subject for kind in EventKind
    }
    told = {f"log of {service}": stack.log(service, last=None) for service in SERVICES}
    for service, port in stack.metrics_ports.items():
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        told[f"metrics of {service}"] = answer.raise_for_status().text
    detailed = httpx.get(f"{stack.addresses.health}/api/health/detailed", trust_env=False)
    told["health's report"] = detailed.raise_for_status().text
    told["subjects"] = " ".join(subjects)
    told["reasons of dead letters"] = " ".join(reasons)
    personal = (
        *(number[1:] for number in (CONTACT, STRANGER)),
        *(TEXT, SAID, ANSWER, API_KEY, WRONG_KEY, WRONG_SIGNATURE),
        stack.addresses.grpc_token,
        urlsplit(stack.addresses.nats_url).username or "",
        signed.request.headers["x-twilio-signature"],
        stack.variables["TWILIO_AUTH_TOKEN"],
        stack.variables["OPENAI_API_KEY"],
    )
    found = {(where, one) for where, text in told.items() for one in personal if one in text}
    assert not found
    for service in SERVICES:
        every = [json.loads(line) for line in told[f"log of {service}"].splitlines()]
        assert {one["service"] for one in every} == {service}


def test_what_strangers_say_stays_words(stack: RunningStack, attacks: Attacks) -> None:
    """Markup, templates, escapes and orders: for the model they are the user's, in voices and
    messages text, in no log, and nobody else is written to or called."""
    for text in INJECTIONS.values():
        writes(stack, WICKED, text)
    answers: list[dict[str, Any]] = []
    deadline = time.monotonic() + _SECONDS
    while not answers:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        exchanged = stack.sandbox.get("/sandbox/messages", params={"contact": WICKED}).json()
        answers = [one for one in exchanged if one["direction"] != "inbound"]
    # What is said is the vendor's text, and when no vendor speaks, TwiML's.
    wicked = INJECTIONS["TwiML"]
    calls = [stack.call(wicked)]
    stack.faults(google_speech={}, speech={})
    calls.append(stack.call(INJECTIONS["SSML"]))
    stack.faults()
    asked = [one["body"] for one in stack.sandbox.get("/sandbox/openai/requests").json()]
    said = [(one["role"], one["content"]) for body in asked for one in body["input"]]
    for kind, text in INJECTIONS.items():
        attacks.count(f"end to end: {kind}", through=("user", text) not in said)
    ordered = json.dumps([(body["instructions"], body.get("tools")) for body in asked])
    attacks.count("end to end: the model's rules", through=MARK in ordered)
    for call, text in zip(calls, (wicked, INJECTIONS["SSML"]), strict=True):
        done = {one["kind"] for one in call["timeline"]}
        attacks.count("end to end: a call", through="dialing" in done or bool(call["error_code"]))
        heard = " ".join(one["text"] or "" for one in call["timeline"])
        assert text[:40] in heard
        assert stack.stored(call["sid"])["turns"][0]["transcript"] == text
    for message in stack.sandbox.get("/sandbox/messages").json():
        attacks.count("end to end: others", through=ELSEWHERE in message["recipient"])
    for service in SERVICES:
        attacks.count("end to end: logs", through=MARK in stack.log(service, last=None))


def _signed(stack: RunningStack, parameters: dict[str, str]) -> httpx.Response:
    path = "/webhook/whatsapp/incoming"
    validator = RequestValidator(stack.variables["TWILIO_AUTH_TOKEN"])
    signature = validator.compute_signature(stack.variables["PUBLIC_HOST"] + path, parameters)
    return _posted(stack, path, parameters, signature)


def _forged(stack: RunningStack, parameters: dict[str, str]) -> httpx.Response:
    return _posted(stack, "/webhook/whatsapp/incoming", parameters, WRONG_SIGNATURE)


def _posted(
    stack: RunningStack, path: str, parameters: dict[str, str], signature: str
) -> httpx.Response:
    return httpx.post(
        stack.addresses.webhook + path,
        data=parameters,
        headers={"x-twilio-signature": signature},
        trust_env=False,
    )


async def _in_nats(url: str) -> tuple[set[str], list[str]]:
    """Every subject there is, and why letters are dead."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        subjects: set[str] = set()
        for stream in ("INGEST", "ACTS", DEAD_STREAM):
            state = (await js.stream_info(stream, subjects_filter=">")).state
            subjects |= set(state.subjects or ())
        return subjects, [letter.reason async for letter in DeadLetterStream(js).letters()]
    finally:
        await client.close()
