"""The OpenAPI document against the whole running system, by schemathesis."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cli.catalogue import EVERYTHING
from tests.support.api import running_api
from tests.support.nats import free_port

KEY = {"X-API-Key": "sandbox-api-key"}
DOCUMENT = "/api/openapi.json"
CONTACT = "+972501234567"
PORTS = ("HTTP", "HEALTH", "GRPC", "SANDBOX", "NATS")

# What makes these right can't be said in a schema: a number that exists, a page's own cursor, a
# message of this conversation, a key not used before.
BEYOND_A_SCHEMA = {"to", "phone", "contact", "cursor", "up_to", "reply_to", "media_url", "until"}

_message_ids = ["0" * 32]
schemathesis.openapi.format(
    "contact-address",
    st.sampled_from(
        [CONTACT, "050-123 4567", f"whatsapp:{CONTACT}", "00972501234567", "+1 415 523 8886"]
    ),
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
    ports = {f"SWITCHBOARD_{name}_PORT": str(free_port()) for name in PORTS}
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
