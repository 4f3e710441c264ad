"""Webhooks that are taken directly, without a server."""

import asyncio
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from prometheus_client import CollectorRegistry
from starlette.types import Scope

from services.common.http_direct import WholeRequest
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher, Settled
from services.webhook.ingress import WebhookIngress
from services.webhook.routes import WHATSAPP_ROUTES
from services.webhook.spill import Spill
from tests.support.edge import FORM, INCOMING, message


class Journal:
    """Stores everything at once."""

    def publish_soon(self, event: JournalEvent, settled: Settled) -> None:
        """Nothing to wait for."""
        settled(None)


class Request:
    """A request that is all there."""

    body = urlencode(message("SM1")).encode()

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.scope: Scope = {
            "path": INCOMING,
            "method": "POST",
            "query_string": b"",
            "headers": [(b"content-type", FORM.encode())],
        }

    def answer(self, head: bytes, body: bytes) -> None:
        """Keep what would be sent."""
        self.answers.append(body)

    def hand_on(self, app: Any) -> None:
        """Nothing here is handed on."""
        raise AssertionError


async def test_waiting_for_its_turn_is_a_part_of_a_requests_time(tmp_path: Path) -> None:
    """The alert on slow webhooks is about what the sender waits for."""
    now = 100.0
    registry = CollectorRegistry()
    ingress = WebhookIngress(
        routes=WHATSAPP_ROUTES,
        verifier=None,
        journal=cast(JournalPublisher, Journal()),
        spill=Spill(tmp_path / "spill.db", max_bytes=0),
        registry=registry,
        monotonic=lambda: now,
    )
    request = Request()
    ingress.take(cast(WholeRequest, request))
    now += 2
    await asyncio.sleep(0)
    assert len(request.answers) == 1
    labels = {"route": "whatsapp_incoming"}
    assert registry.get_sample_value("switchboard_webhook_request_seconds_sum", labels) == 2
