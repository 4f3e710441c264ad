"""What an edge may say that was taken over, or is of another release."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.common.monitor import Finding
from services.health.edge import webhook_probe
from services.health.heard import Heard
from services.health.probes import WEBHOOK
from tests.support.health import WELL, Around, health, messaging, statuses

SENSELESS: list[dict[str, Any]] = [
    {"variables": [{"name": "X"}]},
    {"variables": ["X"]},
    {"variables": "X"},
    {"variables": [{"name": ["X"], "group": "core", "set": True}]},
    {"time": "2026-01-01T00:00:00"},
    {"time": 0},
    {"spill_events": "many"},
    {"spill_events": [1]},
    {"spill_events": -1},
    {"spill_bytes": {}},
    {"spill_bytes": 10**5000},
    {"spill_bytes": None},
    {"journal_connected": "yes"},
    {"journal_trouble": ["it is away"]},
    {"journal_trouble": "x" * 2000},
    {"messaging_trouble": 1},
    {"version": {"is": "0.1.0"}},
]


async def test_nothing_it_says_ends_health(around: Around) -> None:
    """What is of another form makes no sense; everything else goes on being told."""
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        for odd in SENSELESS:
            await statuses(client, webhook="ok", status="ok")
            around.edge.says |= odd
            report = await statuses(client, webhook="down", messaging="ok")
            assert report["components"]["webhook"]["reason"] == "its answer makes no sense", odd
            for path in ("/", "/metrics", "/api/health", "/api/health/liveness"):
                assert (await client.get(path)).status_code == 200, odd
            around.edge.says = dict(WELL)


async def test_what_an_older_edge_does_not_say_is_not_missed(around: Around) -> None:
    """What a newer one adds is not read."""
    around.edge.says |= {"some_news": [1]}
    for name in ("journal_trouble", "messaging_trouble", "variables"):
        around.edge.says.pop(name, None)
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        await statuses(client, webhook="ok", messaging="ok")


class _Raw:
    """An edge that answers bytes of any kind."""

    def __init__(self) -> None:
        self.head = b""
        self.body = b""
        self.sent = 0
        self.asked = b""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            self.asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" + self.head)
            writer.write(b"content-length: %d\r\n\r\n" % len(self.body))
            for start in range(0, len(self.body), 65_536):
                part = self.body[start : start + 65_536]
                writer.write(part)
                await writer.drain()
                self.sent += len(part)
        writer.close()


@pytest.fixture
async def raw() -> AsyncIterator[tuple[_Raw, str]]:
    edge = _Raw()
    server = await asyncio.start_server(edge.answer, "127.0.0.1", 0)
    async with server:
        yield edge, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def found(origin: str) -> Finding:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        return (await webhook_probe(client, origin, Heard())())[WEBHOOK]


async def test_a_compressed_answer_is_not_unpacked(raw: tuple[_Raw, str]) -> None:
    """A megabyte may unpack to a thousand. None is asked for."""
    edge, origin = raw
    edge.head = b"content-type: application/json\r\n"
    edge.body = json.dumps({**WELL, "time": datetime.now(UTC).isoformat()}).encode()
    assert (await found(origin)).status == "ok"
    edge.body = gzip.compress(edge.body)
    edge.head += b"content-encoding: gzip\r\n"
    assert (await found(origin)).reason == "its answer makes no sense"
    assert b"accept-encoding: identity\r\n" in edge.asked.lower()


async def test_no_more_than_a_megabyte_is_read(raw: tuple[_Raw, str]) -> None:
    """What is longer ends there, and no memory is filled with it."""
    edge, origin = raw
    edge.body = json.dumps(WELL).encode() + b" " * 100_000_000
    assert (await found(origin)).reason == "its answer makes no sense"
    assert edge.sent < 50_000_000
