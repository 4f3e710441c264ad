"""The end of a configured model is known before it comes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from sandbox.server import running_sandbox
from services.messaging.openai_client import open_client
from services.messaging.speech.model_dates import ModelDates
from tests.support.peer import Answer, answering, hanging_up, running_peer
from tests.support.sandbox import sandbox_settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CONFIGURED = ["gpt-6-luna", "gpt-4o-mini-tts", "gpt-transcribe"]


@asynccontextmanager
async def dates(base_url: str, registry: CollectorRegistry) -> AsyncIterator[ModelDates]:
    async with open_client(api_key=SecretStr("openai-key"), base_url=base_url) as client:
        yield ModelDates(client, CONFIGURED, clock=lambda: NOW, registry=registry)


def models(*rows: dict[str, Any]) -> Answer:
    return answering(json.dumps({"object": "list", "data": rows}).encode())


def shutdowns(registry: CollectorRegistry) -> dict[str, datetime]:
    return {
        sample.labels["model"]: datetime.fromtimestamp(sample.value, UTC)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "switchboard_model_shutdown_timestamp_seconds"
    }


async def test_dates_of_configured_models() -> None:
    """Models that are configured and have a date are shown with it, and warned of when near."""
    registry = CollectorRegistry()
    near, far = NOW + timedelta(days=59), NOW + timedelta(days=61)
    listed = models(
        {"id": "gpt-6-luna", "shutdown_date": far.date().isoformat()},
        {"id": "gpt-4o-mini-tts", "shutdown_date": near.isoformat()},
        {"id": "gpt-transcribe", "shutdown_date": None},
        {"id": "gpt-4.1", "shutdown_date": "2027-01-14"},
    )
    async with running_peer(listed) as vendor, dates(vendor.base_url, registry) as one:
        with structlog.testing.capture_logs() as logs:
            assert await one.look()
    assert shutdowns(registry) == {"gpt-6-luna": far, "gpt-4o-mini-tts": near}
    warned = [entry["model"] for entry in logs if entry["log_level"] == "warning"]
    assert warned == ["gpt-4o-mini-tts"]


async def test_a_date_that_is_taken_back() -> None:
    """A model that is to stay after all is shown no more."""
    registry = CollectorRegistry()
    rows = [{"id": "gpt-6-luna", "shutdown_date": "2027-06-01"}]

    async def listed(peer: Any, writer: Any) -> None:
        await models(*rows)(peer, writer)

    async with running_peer(listed) as vendor, dates(vendor.base_url, registry) as one:
        await one.look()
        assert shutdowns(registry)
        rows[0].pop("shutdown_date")
        await one.look()
    assert shutdowns(registry) == {}


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (models(), True),
        (models({"id": "gpt-6-luna"}), True),
        (models({"id": "gpt-6-luna", "shutdown_date": "some day"}), True),
        (models({"id": "gpt-6-luna", "shutdown_date": 17}), True),
        (answering(b'{"data": null}'), True),
        (answering(b'{"data": [1, null]}'), False),
        (answering(b"[]"), False),
        (answering(b"<html>", content_type="text/html"), False),
        (answering(b"{}", status="404 Not Found"), False),
        (answering(b"{}", status="400 Bad Request"), False),
        (hanging_up, False),
    ],
)
async def test_servers_without_dates(answer: Answer, known: bool) -> None:
    """A server that lists no dates, or no models, is no error."""
    registry = CollectorRegistry()
    async with running_peer(answer) as vendor, dates(vendor.base_url, registry) as one:
        assert await one.look() is known
    assert shutdowns(registry) == {}


async def test_the_sandbox_has_dates() -> None:
    """The pretend OpenAI lists models as the real one does."""
    registry = CollectorRegistry()
    async with (
        running_sandbox(sandbox_settings()) as sandbox,
        dates(f"{sandbox.base_url}/openai/v1", registry) as one,
    ):
        assert await one.look()
    assert "gpt-4o-mini-tts" in shutdowns(registry)
