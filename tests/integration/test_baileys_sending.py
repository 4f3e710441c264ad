"""Sending through the Baileys bridge: each message once, whoever is killed and when."""

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.messaging.domain.message import Template
from services.messaging.ports.provider_status import ProviderState
from services.messaging.ports.sending import OutcomeKind
from services.messaging.providers.baileys.addresses import reserved_id
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.breaker import Breaker
from tests.support.baileys import Queue, baileys
from tests.support.bridge import STEPS, BridgeDiedError, PretendBridge, PretendWhatsApp
from tests.support.sending import (
    ANY_TIME,
    Sender,
    end_leases,
    events,
    new_message,
    now,
    running,
    sender,
    stored,
    unsettled,
    until,
    until_settled,
)

ANY_LEASE = timedelta(minutes=1)


@pytest.fixture
def store(database: Database) -> SqlOutboxStore:
    return SqlOutboxStore(database, now, ANY_TIME)


@pytest.fixture
def whatsapp() -> PretendWhatsApp:
    return PretendWhatsApp()


@pytest.fixture
def bridge(tmp_path: Path, whatsapp: PretendWhatsApp) -> Callable[..., PretendBridge]:
    def make(**values: Any) -> PretendBridge:
        return PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp, **values)

    return make


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with baileys(tmp_path / "queue") as queue:
        yield queue


def process(store: SqlOutboxStore, queue: Queue, **values: Any) -> Sender:
    return sender(store, queue.provider, conditions={"baileys": queue.session.condition}, **values)


async def usable(queue: Queue) -> None:
    async def open_() -> bool:
        return queue.session.obstacle() is None

    await until(open_)


def message(body: str = "Hello", **values: Any) -> Any:
    return new_message(body, provider="baileys", **values)


async def test_sent(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """A message has its WhatsApp id before it is sent, and is sent once the server has it."""
    queued, _ = await store.enqueue(message())
    async with running(bridge().run()):
        one = process(store, queue)
        async with running(one.dispatcher.run()):
            await until_settled(database)
    [row] = await stored(database)
    assert (row.status, row.provider_message_id) == ("sent", reserved_id(queued.id))
    [send] = whatsapp.handed
    assert (send.id, send.ref, send.to) == (
        reserved_id(queued.id),
        queued.id,
        "972501234567@s.whatsapp.net",
    )
    assert await events(database, queued.id) == ["queued", "attempt", "accepted"]
    assert not list((queue.folder.root / "outbox/done").iterdir())


async def test_an_old_message(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """When the bridge comes back after days, what waited for it all the time is not sent as if it
    were new, and says why; what came of late is sent."""

    def last_week() -> datetime:
        return now() - timedelta(days=7)

    old = SqlOutboxStore(database, last_week, ANY_TIME)
    waited, _ = await old.enqueue(message("Tomorrow at nine?"))
    await store.enqueue(message("Are you there?"))
    async with running(bridge().run()):
        one = process(store, queue)
        async with running(one.dispatcher.run()):
            await until_settled(database)
    assert whatsapp.on_phone() == ["Are you there?"]
    row, _ = await stored(database)
    assert (row.status, row.error_code) == ("failed", "expired")
    assert row.error_message.startswith("not sent: it was older than SEND_MAX_AGE_SECONDS")
    assert await events(database, waited.id) == ["queued", "rejected"]


async def test_refused(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """An account that may not write to a contact (463) is not made to try again."""
    whatsapp.behaviour = "refuse"
    queued, _ = await store.enqueue(message())
    async with running(bridge().run()):
        one = process(store, queue)
        async with running(one.dispatcher.run(), one.reconciler.run()):
            await until_settled(database)
    [row] = await stored(database)
    assert (row.status, row.error_code) == ("failed", "463")
    assert await events(database, queued.id) == ["queued", "attempt", "rejected"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"state": "restricted", "reason": "463"}, "restricted by WhatsApp: 463"),
        ({"state": "logged_out", "reason": "by the owner"}, "logged out: by the owner"),
        ({"account": "+14155550009"}, "another number"),
        ({"state": "connecting", "account": None}, "connecting: as the test says"),
        ({"last_frame_at": "2026-01-01T00:00:00Z"}, "silent"),
        ({"written_at": "2026-01-01T00:00:00Z"}, "isn't running"),
        ({"written_at": "2126-01-01T00:00:00Z"}, "clock is ahead"),
        ({"state": "sleeping"}, "state.json can't be read: field: state"),
    ],
)
async def test_unusable_session(
    state: dict[str, Any], words: str, tmp_path: Path, whatsapp: PretendWhatsApp
) -> None:
    """What the session lacks is the provider's status, in words, and nothing is sent meanwhile."""
    root = tmp_path / "queue"
    async with baileys(root) as queue:
        PretendBridge(root, tmp_path / "own", whatsapp, state=state).prepare()
        breaker = Breaker("baileys", now, condition=queue.session.condition)

        async def told() -> bool:
            return words in breaker.status().reason

        await until(told)
        assert breaker.status().state is ProviderState.UNAVAILABLE
        assert breaker.free() == 0


async def test_no_bridge_yet(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """Before the bridge is there no attempt is burnt; once it is, what waited goes out."""
    assert "never run" in queue.session.condition().reason
    await store.enqueue(message())
    one = process(store, queue)
    async with running(one.dispatcher.run()):
        await asyncio.sleep(0.5)  # Nothing may happen, and nothing tells that it didn't.
        assert await unsettled(database) == [("due", 0)]
        async with running(bridge().run()):
            await until_settled(database)
    assert whatsapp.on_phone() == ["Hello"]


async def test_withdrawn(
    store: SqlOutboxStore, queue: Queue, bridge: Callable[..., PretendBridge]
) -> None:
    """What the bridge doesn't take in time is taken back: certainly nothing was sent."""
    silent = bridge()
    silent.prepare()
    await usable(queue)
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)
    sending = asyncio.create_task(queue.provider.send(claimed))
    while not sending.done():
        silent.write_state()
        await asyncio.sleep(0.05)
    outcome = await sending
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, "bridge_busy")
    assert not list((queue.folder.root / "outbox/new").iterdir())


async def test_withdrawn_when_the_session_ends(
    store: SqlOutboxStore, queue: Queue, bridge: Callable[..., PretendBridge]
) -> None:
    """A send that waits is taken back at once when the session can't send any more."""
    silent = bridge()
    silent.prepare()
    await usable(queue)
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)
    sending = asyncio.create_task(queue.provider.send(claimed))

    async def written() -> bool:
        return any((queue.folder.root / "outbox/new").iterdir())

    await until(written)
    silent.write_state(state="logged_out")
    outcome = await sending
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, "bridge_logged_out")


@pytest.mark.parametrize("behaviour", ["silent", "hang"])
async def test_no_acknowledgement(
    behaviour: str,
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """An unknown outcome is tried again under the same id, of which the phone shows one."""
    whatsapp.behaviour = behaviour
    await store.enqueue(message())
    one = process(store, queue)
    async with running(one.dispatcher.run(), one.reconciler.run()):
        async with running(bridge().run()):

            async def handed() -> bool:
                return bool(whatsapp.handed)

            await until(handed)
        whatsapp.behaviour = "ack"
        async with running(bridge().run()):
            await until_settled(database)
    [row] = await stored(database)
    assert row.status == "sent"
    assert whatsapp.on_phone() == ["Hello"]
    assert len({send.id for send in whatsapp.handed}) == 1


@pytest.mark.parametrize("step", STEPS)
async def test_bridge_killed(
    step: str,
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """Whenever the bridge is killed, the message is sent, and the phone shows it once."""
    await store.enqueue(message())
    one = process(store, queue)
    async with running(one.dispatcher.run(), one.reconciler.run()):
        with pytest.raises(BridgeDiedError):
            await bridge(die_after=step).run()
        async with running(bridge().run()):
            await until_settled(database)
    [row] = await stored(database)
    assert row.status == "sent"
    assert whatsapp.on_phone() == ["Hello"]
    if step != "sent":
        assert len(whatsapp.handed) == 1


@pytest.mark.parametrize("point", ["claimed", "written", "answered", "settled"])
async def test_messaging_killed(
    point: str,
    database_url: str,
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
) -> None:
    """Whenever messaging is killed, the message is handed to WhatsApp once."""
    await store.enqueue(message())
    async with running(bridge().run()):
        killed = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.sending_process",
            database_url,
            str(queue.folder.root),
            point,
        )
        async with asyncio.timeout(90):
            assert await killed.wait() == -9
        await end_leases(database)
        one = process(store, queue)
        async with running(one.dispatcher.run(), one.reconciler.run()):
            await until_settled(database)
    [row] = await stored(database)
    assert row.status == "sent"
    assert len(whatsapp.handed) == 1


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "queue_full", "no space left"),
        (errno.EROFS, "queue_not_writable", "may not be written to"),
        (errno.EIO, "queue_failed", "Input/output error"),
    ],
)
async def test_folder_refuses(
    number: int,
    code: str,
    words: str,
    store: SqlOutboxStore,
    queue: Queue,
    bridge: Callable[..., PretendBridge],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full or read-only disk is said to be one; nothing was sent, and no file is left."""
    bridge().prepare()
    await usable(queue)
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    outcome = await queue.provider.send(claimed)
    monkeypatch.undo()
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, code)
    assert words in (outcome.error_message or "")
    assert not list((queue.folder.root / "outbox/tmp").iterdir())
    assert not list((queue.folder.root / "outbox/new").iterdir())


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "left"])
async def test_folder_fails_after_the_send_is_there(
    taken: bool,
    store: SqlOutboxStore,
    queue: Queue,
    whatsapp: PretendWhatsApp,
    bridge: Callable[..., PretendBridge],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A send that the bridge can see is never said to be unsent because its folder can't be synced:
    it was sent once, or is certainly taken back."""
    one = bridge()
    one.prepare()
    await usable(queue)
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)
    new = queue.folder.root / "outbox/new"
    real = os.fsync

    def fail(file: int) -> None:
        if os.path.samestat(os.fstat(file), new.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    async def written() -> bool:
        return sending.done() or any(new.iterdir())

    monkeypatch.setattr(os, "fsync", fail)
    sending = asyncio.create_task(queue.provider.send(claimed))
    await until(written)
    if taken:
        await one.step()
    else:
        one.write_state(state="logged_out")
    outcome = await sending
    assert outcome.kind is (OutcomeKind.ACCEPTED if taken else OutcomeKind.RETRY)
    assert whatsapp.on_phone() == (["Hello"] if taken else [])
    assert not list(new.iterdir())


async def test_folder_gone(store: SqlOutboxStore, tmp_path: Path) -> None:
    """A folder that isn't there is the provider's status."""
    async with baileys(tmp_path / "queue") as queue:
        (tmp_path / "queue").rename(tmp_path / "elsewhere")

        async def told() -> bool:
            return "BAILEYS_QUEUE_DIR" in queue.session.condition().reason

        await until(told)
        assert not queue.session.condition().usable


async def test_too_many_waiting(
    store: SqlOutboxStore, queue: Queue, bridge: Callable[..., PretendBridge]
) -> None:
    """Beyond a limit no more sends are written: what can't be sent waits in the database."""
    bridge().prepare()
    await usable(queue)
    for number in range(1000):
        (queue.folder.root / "outbox/new" / f"{number:016}-x.json").touch()
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)
    outcome = await queue.provider.send(claimed)
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.RETRY, "queue_full")


async def test_bad_answer(
    store: SqlOutboxStore, queue: Queue, bridge: Callable[..., PretendBridge]
) -> None:
    """An answer that can't be read proves nothing: the outcome is unknown."""
    bridge().prepare()
    await usable(queue)
    await store.enqueue(message())
    [claimed] = await store.claim(limit=1, lease=ANY_LEASE)
    sending = asyncio.create_task(queue.provider.send(claimed))
    outbox = queue.folder.root / "outbox"

    async def written() -> bool:
        return any((outbox / "new").iterdir())

    await until(written)
    [file] = (outbox / "new").iterdir()
    (outbox / "done" / file.name).write_text('{"v": 1, "ki')
    outcome = await sending
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.UNKNOWN, "bad_answer")


async def test_what_cannot_be_sent(
    store: SqlOutboxStore, queue: Queue, bridge: Callable[..., PretendBridge]
) -> None:
    """A template, and a contact without phone or LID, are refused rather than dropped."""
    bridge().prepare()
    await usable(queue)
    await store.enqueue(message(body="", template=Template("HX1", {})))
    await store.enqueue(message(to="+972501234568"))
    template, other = await store.claim(limit=2, lease=ANY_LEASE)
    outcome = await queue.provider.send(template)
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.REJECTED, "unsupported")
    changed = replace(other, contact_address="whatsapp:US.13491208655302")
    outcome = await queue.provider.send(changed)
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.REJECTED, "no_address")
