"""Containers are restarted and killed under load: nothing acknowledged is lost or doubled."""

import threading
import time
from urllib.parse import urlencode

import httpx
import pytest
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]  # No stubs.

from tests.support.compose import ComposeStack, until

pytestmark = pytest.mark.timeout(1200)

_PATH = "/webhook/whatsapp/incoming"
_EACH_SECONDS = 0.25


class Contacts(threading.Thread):
    """People who write once each, by signed webhooks, for as long as it runs.

    Attributes:
        acknowledged: Ids of messages whose webhook was answered with 200.
        refused: How many were not, as nobody listened.
    """

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        self.refused = 0
        self._origin = origin
        self._done = threading.Event()

    def run(self) -> None:
        """Write, until told to stop."""
        sign = RequestValidator("sandbox-auth-token").compute_signature
        number = 0
        while not self._done.wait(_EACH_SECONDS):
            number += 1
            parameters = {
                "MessageSid": f"SM{number:032x}",
                "AccountSid": "AC00000000000000000000000000000000",
                "From": f"whatsapp:+97252{number:07d}",
                "To": "whatsapp:+14155238886",
                "Body": f"Question {number}",
                "NumMedia": "0",
            }
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Twilio-Signature": sign(f"http://webhook:8080{_PATH}", parameters),
            }
            try:
                answer = httpx.post(
                    self._origin + _PATH, content=urlencode(parameters), headers=headers, timeout=15
                )
            except httpx.TransportError:
                self.refused += 1
                continue
            if answer.status_code == 200:
                self.acknowledged.append(parameters["MessageSid"])
            else:
                self.refused += 1

    def stop(self) -> None:
        """Stop writing."""
        self._done.set()
        self.join()


def test_every_container_may_go(stack: ComposeStack) -> None:
    """Stopped in order or killed: each comes back, and the three sides agree in the end."""
    contacts = Contacts(stack.webhook)
    contacts.start()
    recovered: dict[str, float] = {}
    try:
        for service in ("messaging", "webhook", "nats", "postgres", "health"):
            for how in ("restart", "kill"):
                time.sleep(2)
                begun = time.monotonic()
                stack.compose(how, service)
                stack.compose("up", "--detach")
                stack.wait_until_healthy()
                recovered[f"{service} {how}"] = time.monotonic() - begun
    finally:
        contacts.stop()
    assert len(contacts.acknowledged) > 50

    def stored() -> set[str]:
        query = "SELECT provider_message_id FROM messages WHERE direction = 'inbound'"
        return set(stack.sql(query).splitlines())

    until(lambda: set(contacts.acknowledged) <= stored(), "acknowledged messages are missing", 120)
    query = "SELECT count(*) - count(DISTINCT provider_message_id) FROM messages"
    assert stack.sql(f"{query} WHERE direction = 'inbound'") == "0"

    def unsettled() -> str:
        return stack.sql(
            "SELECT count(*) FROM messages WHERE direction = 'outbound'"
            " AND status NOT IN ('delivered', 'read', 'failed', 'undelivered')"
        )

    until(lambda: unsettled() == "0", "answers are still under way", 300)
    seen = [
        message["recipient"]
        for message in stack.ask("sandbox", "http://127.0.0.1:8090/sandbox/messages")
        if message["direction"].startswith("outbound")
    ]
    assert len(seen) == len(set(seen)), "somebody was answered twice"
    delivered = stack.sql(
        "SELECT count(*) FROM messages WHERE direction = 'outbound' AND status = 'read'"
    )
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in recovered.items())
    stack.report(
        f"{len(contacts.acknowledged)} webhooks acknowledged and stored once,"
        f" {contacts.refused} refused while nobody listened; {len(seen)} answers seen once each,"
        f" {delivered} read. Healthy again, in all: {took}"
    )
