"""`python -m services.webhook` as a process."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from services.common.grpc_client import open_channel
from services.common.journal.events import JournalEvent
from services.common.lifecycle import EXIT_CONFIGURATION
from services.webhook.messaging_probe import MessagingProbe
from tests.support.edge import PUBLIC_HOST, TOKEN, signature, stored, until
from tests.support.edge_process import EdgeProcess
from tests.support.health import TOKEN as GRPC_TOKEN
from tests.support.health import messaging
from tests.support.nats import NatsServer
from tests.support.ports import free_port


@pytest.fixture
def environment(nats_server: NatsServer, tmp_path: Path) -> dict[str, str]:
    return {
        "PUBLIC_HOST": PUBLIC_HOST,
        "TWILIO_AUTH_TOKEN": f"old-token,{TOKEN}",
        "NATS_URL": nats_server.url,
        "JOURNAL_MAX_BYTES": "50000000",
        "SPILL_PATH": str(tmp_path / "data" / "spill.db"),
    }


@pytest.fixture
def processes() -> Iterator[list[EdgeProcess]]:
    started: list[EdgeProcess] = []
    yield started
    for edge in started:
        if edge.process.poll() is None:
            edge.kill()


async def test_killed_with_events_on_its_disk(
    nats_server: NatsServer,
    environment: dict[str, str],
    processes: list[EdgeProcess],
    tmp_path: Path,
) -> None:
    """Starts with NATS away, takes webhooks, dies by SIGKILL; the next run brings them in."""
    nats_server.stop()
    first = EdgeProcess(environment, tmp_path / "log")
    processes.append(first)
    first.ready()
    assert [first.post(f"SM{n}") for n in range(20)] == [200] * 20
    assert (first.health()["status"], first.health()["spill_events"]) == ("degraded", 20)
    first.kill()

    nats_server.start()
    second = EdgeProcess(environment, tmp_path / "log")
    processes.append(second)
    second.ready()
    second.connected()
    await until(lambda: second.health()["spill_events"] == 0)
    assert second.post("SM20") == 200
    assert second.stop() == 0
    keys = [JournalEvent.parse(m.headers, m.data).key for m in await stored(nats_server.url)]
    assert keys == [f"message:SM{n}" for n in range(21)]
    assert "+972501234567" not in second.log.read_text()
    assert TOKEN not in second.log.read_text()


def test_what_else_the_edge_serves(
    environment: dict[str, str], processes: list[EdgeProcess], tmp_path: Path
) -> None:
    """The API, audio and health share one port with the webhooks; all else is 404."""
    keys = {
        "API_KEYS": "crm:a-key-for-tests",
        "GRPC_TOKEN": "token",
        "MESSAGING_GRPC_ADDRESS": "127.0.0.1:9",
    }
    edge = EdgeProcess({**environment, **keys}, tmp_path / "log")
    processes.append(edge)
    edge.ready()
    edge.connected()

    def status(path: str, **headers: str) -> int:
        return httpx.get(edge.url + path, headers=headers, timeout=60).status_code

    assert status("/api/openapi.json") == 200
    assert status("/api/whatsapp/status") == 401
    # Nobody answers where messaging should be.
    assert status("/api/calls", **{"x-api-key": "a-key-for-tests"}) == 503
    assert status("/api/nothing", **{"x-api-key": "a-key-for-tests"}) == 404
    assert status(f"/audio/{'0' * 64}.mp3") == 404
    assert status("/voice/voicemail/greeting?turn=1") == 200
    assert [status(path) for path in ("/", "/api", "/docs", "/webhook")] == [404] * 4
    call = {"CallSid": "CA1", "From": "+972501234567", "To": "+14155238886"}
    answer = httpx.post(
        edge.url + "/webhook/incoming_call",
        data=call,
        headers={"x-twilio-signature": signature("/webhook/incoming_call", call)},
        timeout=60,
    )
    assert "<Record" in answer.text
    assert edge.stop() == 0


async def test_messaging_that_can_not_be_asked_is_known_before_the_first_caller(
    environment: dict[str, str], processes: list[EdgeProcess], tmp_path: Path
) -> None:
    """Nobody calls; the internal port tells it, and since when, until messaging is there."""
    port = free_port()
    where = {"GRPC_TOKEN": GRPC_TOKEN, "MESSAGING_GRPC_ADDRESS": f"127.0.0.1:{port}"}
    edge = EdgeProcess({**environment, **where}, tmp_path / "log")
    processes.append(edge)
    edge.ready()
    await until(lambda: edge.health()["messaging_trouble"] == "it can't reach messaging")
    told = edge.health()
    assert told["status"] == "degraded"
    since = datetime.fromisoformat(str(told["messaging_trouble_since"]))
    assert abs((datetime.now(UTC) - since).total_seconds()) < 60
    async with messaging(port):
        await until(lambda: not edge.health()["messaging_trouble"])
    assert edge.stop() == 0


async def test_a_token_that_messaging_refuses_is_named() -> None:
    """It is the one of several troubles that no waiting mends."""
    port = free_port()
    async with messaging(port), open_channel(f"127.0.0.1:{port}", "another-token") as channel:
        probe = MessagingProbe(channel, interval_seconds=0.05)
        assert probe.trouble == ""
        running = asyncio.create_task(probe.run())
        await until(lambda: probe.trouble == "messaging refuses its GRPC_TOKEN")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_bypass_is_refused_in_production(
    environment: dict[str, str], processes: list[EdgeProcess], tmp_path: Path
) -> None:
    """Without APP_ENV=development the edge doesn't start, and says why."""
    edge = EdgeProcess({**environment, "BYPASS_TWILIO_SIGNATURE": "true"}, tmp_path / "log")
    processes.append(edge)
    assert edge.process.wait(timeout=90) == EXIT_CONFIGURATION
    assert "BYPASS_TWILIO_SIGNATURE: is allowed only with APP_ENV" in edge.log.read_text()


def test_the_bypass_in_development_is_loud(
    environment: dict[str, str], processes: list[EdgeProcess], tmp_path: Path
) -> None:
    """An unsigned webhook is taken, the log warns, and health says degraded."""
    development = {"APP_ENV": "development", "BYPASS_TWILIO_SIGNATURE": "true"}
    edge = EdgeProcess({**environment, **development}, tmp_path / "log")
    processes.append(edge)
    edge.ready()
    assert edge.post("SM1", sign=False) == 200
    assert (edge.health()["status"], edge.health()["signatures_bypassed"]) == ("degraded", True)
    assert edge.stop() == 0
    assert "anyone can send webhooks" in edge.log.read_text()


def test_an_unwritable_spill_stops_the_start(
    environment: dict[str, str], processes: list[EdgeProcess], tmp_path: Path
) -> None:
    """Without its safety net the edge doesn't start, and names the file."""
    path = str(tmp_path)
    edge = EdgeProcess({**environment, "SPILL_PATH": path}, tmp_path / "log")
    processes.append(edge)
    assert edge.process.wait(timeout=90) == 1
    assert path in edge.log.read_text()


def test_stopping_while_the_broker_is_away(
    nats_server: NatsServer,
    environment: dict[str, str],
    processes: list[EdgeProcess],
    tmp_path: Path,
) -> None:
    """SIGTERM ends the edge in order also when NATS vanished or never was there."""
    edge = EdgeProcess(environment, tmp_path / "log")
    processes.append(edge)
    edge.ready()
    edge.connected()
    assert edge.post("SM1") == 200
    nats_server.kill()
    assert edge.post("SM2") == 200
    assert edge.stop() == 0
    never = EdgeProcess(environment, tmp_path / "log")
    processes.append(never)
    never.ready()
    assert never.health()["spill_events"] == 1
    assert never.stop() == 0
