"""Both sides of the file queue in the states that a killed process leaves, by the shared cases."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.journal.streams import INGEST_STREAM
from services.messaging.providers.baileys.addresses import reserved_id
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.inbox import InboxReader
from tests.support.bridge import PretendBridge, PretendWhatsApp
from tests.support.journal import journal, publishing
from tests.support.nats import NatsServer
from tests.support.sending import now, running, until

CASES = Path(__file__).parents[1] / "conformance" / "baileys-queue"
CRASHES = json.loads((CASES / "crashes.json").read_text())
NAMES = json.loads((CASES / "names.json").read_text())


def crashes(side: str) -> list[Any]:
    return [
        pytest.param(case, id=case["name"]) for case in CRASHES["cases"] if case["side"] == side
    ]


def put(root: Path, files: dict[str, str]) -> None:
    for folder in ("outbox/new", "outbox/cur", "outbox/done", "outbox/bad", "outbox/tmp"):
        (root / folder).mkdir(parents=True)
    for folder in ("inbox/new", "inbox/cur", "inbox/bad", "inbox/tmp", "media/tmp"):
        (root / folder).mkdir(parents=True)
    times = {"@now": 0, "@soon": 60, "@past": -3600}
    for path, name in files.items():
        content = CRASHES["files"][name]
        text = content if isinstance(content, str) else json.dumps(content)
        for word, seconds in times.items():
            at = datetime.now(UTC) + timedelta(seconds=seconds)
            text = text.replace(word, at.isoformat().replace("+00:00", "Z"))
        (root / path).write_text(text)
        if name == "answer_old":
            os.utime(root / path, (time.time() - 7200, time.time() - 7200))


def left(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


@pytest.mark.parametrize("case", crashes("bridge"))
async def test_bridge_resumes(case: dict[str, Any], tmp_path: Path) -> None:
    """The bridge of our tests keeps the contract that the real one keeps."""
    root, own = tmp_path / "queue", tmp_path / "own"
    put(root, case["before"])
    whatsapp = PretendWhatsApp()
    bridge = PretendBridge(root, own, whatsapp)
    bridge.prepare()
    send_id = CRASHES["files"]["send"]["id"]
    results = {
        "sending": None,
        "accepted": {"outcome": "accepted", "at": "2026-03-01T12:00:02Z"},
        "refused": {"outcome": "refused", "code": "463"},
    }
    if case["record"] is not None:
        bridge.record(send_id, results[case["record"]])
    mine = [one for one in case["after"] if not one.startswith("inbox/")]

    async def at_rest() -> bool:
        return [f for f in left(root) if f.startswith("outbox/")] == sorted(mine)

    async with running(bridge.run()):
        await until(at_rest)
    assert len(whatsapp.handed) == int(case["sends"])
    if case["answer"] is not None:
        [done] = (root / "outbox/done").iterdir()
        answer = json.loads(done.read_text())
        assert {name: answer.get(name) for name in case["answer"]} == case["answer"]


@pytest.mark.parametrize("case", crashes("messaging"))
async def test_messaging_resumes(
    case: dict[str, Any], tmp_path: Path, nats_server: NatsServer
) -> None:
    """Whatever messaging left behind when it was killed, nothing is lost and nothing doubled."""
    root = tmp_path / "queue"
    put(root, case["before"])

    async def at_rest() -> bool:
        return left(root) == sorted(case["after"])

    async with journal(nats_server) as client, publishing(client) as publisher:
        reader = InboxReader(QueueFolder(root), publisher, clock=now, registry=CollectorRegistry())
        async with running(reader.run()):
            await until(at_rest)
        info = await client.jetstream().stream_info(INGEST_STREAM)
        assert info.state.messages == case["journaled"]


async def test_names(tmp_path: Path) -> None:
    """Files are taken in the order of their names; foreign ones are set aside, hidden ones not."""
    folder = QueueFolder(tmp_path)
    await asyncio.to_thread(folder.prepare)
    for name in [*NAMES["valid"], *NAMES["foreign"], *NAMES["ignored"]]:
        (tmp_path / "inbox/new" / name).write_text("{}")
    taken = folder.take_events(100)
    assert [one.name for one in taken] == sorted(NAMES["valid"])
    assert sorted(file.name for file in (tmp_path / "inbox/new").iterdir()) == sorted(
        NAMES["ignored"]
    )
    aside = {f.name for f in (tmp_path / "inbox/bad").iterdir() if f.suffix != ".reason"}
    assert aside == set(NAMES["foreign"])


def test_order() -> None:
    """Names sort by time."""
    assert sorted(NAMES["in_order"]) == NAMES["in_order"]


@pytest.mark.parametrize("pair", NAMES["ids"])
def test_reserved_ids(pair: dict[str, str]) -> None:
    """The id of a message follows from ours, at every attempt."""
    assert reserved_id(pair["ref"]) == pair["id"]
