"""The API of the whole running system, and its document against it by schemathesis."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cli.catalogue import EVERYTHING
from tests.support.api import running_api
from tests.support.ports import run_ports

KEY = {"X-API-Key": "sandbox-api-key"}
DOCUMENT = "/api/openapi.json"
SEND = "/api/whatsapp/send"
CONTACT = "+972501234567"

# What makes these right can't be said in a schema: a number that exists, a page's own cursor, a
# message of this conversation, a key not used before.
BEYOND_A_SCHEMA = {
    "to",
    "phone",
    "number",
    "contact",
    "cursor",
    "up_to",
    "reply_to",
    "media_url",
    "until",
}

_message_ids = ["0" * 32]
schemathesis.openapi.format(
    "contact-address",
    st.sampled_from(
        [CONTACT, "050-123 4567", f"whatsapp:{CONTACT}", "00972501234567", "+1 415 523 8886"]
    ),
)
schemathesis.openapi.format(
    "phone-number", st.sampled_from([CONTACT, "050-123 4567", "00972501234567"])
)
schemathesis.openapi.format("message-id", st.deferred(lambda: st.sampled_from(_message_ids)))


async def _document() -> Any:
    # Nobody answers there; the document needs no messaging.
    async with running_api("127.0.0.1:9") as api:
        return (await api.http.get(DOCUMENT)).json()


schema = schemathesis.openapi.from_dict(asyncio.run(_document()))

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`switchboard run`, with a conversation in it."""
    ports = run_ports()
    ours = {name.upper() for part in EVERYTHING.values() for name in part.model_fields}
    environ = {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "PYTHONUNBUFFERED": "1",
        "SLOW_QUERY_MS": "60000",
        "DEFAULT_REGION": "IL",
        "API_REQUESTS_PER_MINUTE": "1000000",
        "API_KEY_FAILURES_PER_MINUTE": "1000000",
        **ports,
    }
    folder = tmp_path_factory.mktemp("run")
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "run"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            assert run.stdout is not None
            lines: list[str] = []
            for line in run.stdout:
                lines.append(line)
                if "Switchboard is ready" in line:
                    break
            assert run.poll() is None, "".join(lines)
            said = [sys.executable, "-m", "cli", "say", "Is the flat still free?"]
            subprocess.run(said, cwd=folder, env=environ, check=True, capture_output=True)
            url = f"http://127.0.0.1:{ports['SWITCHBOARD_HTTP_PORT']}"
            page = httpx.get(f"{url}/api/whatsapp/messages", headers=KEY).json()
            _message_ids[:] = [message["id"] for message in page["messages"]]
            yield url
        finally:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=60)


def _stream(http: httpx.Client, path: str, last: str, until: Callable[[Any], bool]) -> list[Any]:
    """Ids and data of a stream's events, up to one that is waited for."""
    found = []
    with http.stream("GET", path, headers={"Last-Event-ID": last} if last else {}) as response:
        data: Any = None
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                data = json.loads(value)
            elif name == "id" and data is not None:
                found.append((value, data))
                if until(data):
                    return found
                data = None
            elif name == "id" and not last:
                last = value
                threading.Thread(target=_send, args=(http,)).start()
    raise AssertionError("the stream ended")


def _send(http: httpx.Client) -> None:
    body = {"to": CONTACT, "body": "See you at nine."}
    assert http.post(SEND, json=body).status_code == 202


def test_what_was_missed_is_told_again(base_url: str) -> None:
    """A message is followed to its end; from any event of it, a later client sees all the rest."""
    with httpx.Client(base_url=base_url, headers=KEY, timeout=30) as http:
        path = f"/api/whatsapp/stream?contact={quote(CONTACT)}"
        told = _stream(http, path, "", lambda data: data["message"]["status"] == "read")
        message_id = told[-1][1]["message"]["id"]
        assert told[0][1]["event"]["kind"] == "queued"
        for number, (position, _) in enumerate(told[:-1], 1):
            again = _stream(
                http, path, position, lambda data: data["event"] == told[-1][1]["event"]
            )
            assert [one[0] for one in again] == [one[0] for one in told[number:]]
        history = http.get(f"/api/whatsapp/messages/{message_id}").json()["events"]
    ours = [data["event"] for _, data in told if data["message"]["id"] == message_id]
    assert ours == history


def test_the_same_request_is_sent_once(base_url: str) -> None:
    """Asked ten times at once with one Idempotency-Key, there is one message, and it is sent."""
    with httpx.Client(base_url=base_url, headers=KEY, timeout=60) as http:
        headers = {"Idempotency-Key": "ten-times"}
        body = {"to": CONTACT, "body": "Only once."}

        def ask(_: int) -> Any:
            response = http.post(f"{SEND}?wait=20", json=body, headers=headers)
            assert response.status_code == 202
            return response.json()

        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(ask, range(10)))
        assert len({answer["id"] for answer in answers}) == 1
        assert {answer["status"] for answer in answers} <= {"sent", "delivered", "read"}
        page = http.get("/api/whatsapp/messages?limit=200").json()["messages"]
        assert [one["body"] for one in page].count("Only once.") == 1
        other = http.post(SEND, json={**body, "body": "Another."}, headers=headers)
        assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("path", ["/api/calls/a%0Ab", "/api/%0A", "/api/nothing%0D%0A"])
def test_a_line_end_in_an_address_is_no_way_past_the_api(base_url: str, path: str) -> None:
    """Whatever follows `/api/` is answered by the API, in its own words."""
    for headers, status in ((KEY, 404), ({}, 401)):
        response = httpx.get(base_url + path, headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


def test_the_document_is_served_to_everyone(base_url: str) -> None:
    """It needs no key, and is the one that is tested here."""
    assert httpx.get(base_url + DOCUMENT).json() == schema.raw_schema


# A stream has no end to wait for; it has tests of its own.
@schema.exclude(path="/api/whatsapp/stream").parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_document_is_true(case: Any, base_url: str) -> None:
    """Every answer is as the document says, no request breaks it, and what it allows is taken."""
    response = case.call(base_url=base_url, headers=KEY)
    case.validate_response(response, headers=KEY, excluded_checks=[positive_data_acceptance])
    if case.meta.generation.mode.is_positive and response.status_code in (400, 422):
        document = response.json()
        fields = {one["field"] for one in document.get("errors", ())}
        assert document["reason"] == "IDEMPOTENCY_CONFLICT" or fields <= BEYOND_A_SCHEMA, document
        assert fields or document["reason"] == "IDEMPOTENCY_CONFLICT"
