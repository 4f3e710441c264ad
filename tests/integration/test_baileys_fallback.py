"""Twilio and Baileys for each other: only what was certainly not sent moves, and only where the
other's rules allow it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.server import RunningSandbox
from services.common.errors import PolicyRefusedError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.message import Template
from services.messaging.ports.receiving import ReceivedMessage
from services.messaging.ports.sending import ClaimedSend, Provider, SendOutcome
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.baileys import WEB_RULES, Queue, baileys
from tests.support.bridge import ACCOUNT, BridgeDiedError, PretendBridge, PretendWhatsApp
from tests.support.receiving import inbound
from tests.support.sending import (
    Sender,
    new_message,
    now,
    running,
    sender,
    stored,
    twilio,
    unsettled,
    until,
    until_settled,
)

WROTE = "+15550000000"
"""A contact whose window is open."""


@pytest.fixture
async def store(database: Database) -> SqlOutboxStore:
    message = inbound("SM1", address=WROTE)
    message = replace(
        message, received_at=now() - timedelta(minutes=1), own_address=new_message().own_address
    )
    await SqlIngestStore(database).ingest([ReceivedMessage(message, None, None)], [])
    return SqlOutboxStore(database, now, WEB_RULES)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with baileys(tmp_path / "queue") as queue:
        yield queue


@pytest.fixture
def whatsapp() -> PretendWhatsApp:
    return PretendWhatsApp()


@pytest.fixture
def bridge(tmp_path: Path, whatsapp: PretendWhatsApp) -> PretendBridge:
    return PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp)


@asynccontextmanager
async def working(
    store: SqlOutboxStore, queue: Queue, *providers: Provider, send_timeout: float = 2
) -> AsyncIterator[Sender]:
    process = sender(
        store,
        *providers,
        breaker_failures=2,
        breaker_pause=60,
        conditions={"baileys": queue.session.condition},
        send_timeout=send_timeout,
        lease=2 * send_timeout,
    )
    async with running(process.dispatcher.run(), process.reconciler.run()):
        yield process


class Counted:
    """A provider, and how many messages it was given at once."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self.absorbs_repeats = provider.absorbs_repeats
        self.sent_messages = provider.sent_messages
        self._provider = provider
        self._now = 0
        self.most = 0

    async def send(self, message: ClaimedSend) -> SendOutcome:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await self._provider.send(message)
        finally:
            self._now -= 1


def message(provider: str, body: str = "Hello", **values: Any) -> Any:
    return new_message(body, to=WROTE, provider=provider, **values)


async def test_from_baileys_to_twilio(
    database: Database, store: SqlOutboxStore, queue: Queue, sandbox: RunningSandbox
) -> None:
    """While the bridge isn't there, Twilio sends in the same conversation."""
    await store.enqueue(message("baileys"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):
        await until_settled(database)
    rows = [row for row in await stored(database) if row.direction == "outbound"]
    assert [(row.provider, row.status != "failed") for row in rows] == [("twilio", True)]
    assert len({row.conversation_id for row in await stored(database)}) == 1
    assert len(sandbox.state.messages) == 1


async def test_from_twilio_to_baileys(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    bridge: PretendBridge,
    whatsapp: PretendWhatsApp,
) -> None:
    """While Twilio can't be reached, the bridge sends."""
    await store.enqueue(message("twilio"))
    async with (
        twilio("http://127.0.0.1:9") as primary,
        running(bridge.run()),
        working(store, queue, primary, queue.provider),
    ):
        await until_settled(database)
    assert whatsapp.on_phone() == ["Hello"]


async def test_what_may_have_been_sent_stays(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    sandbox: RunningSandbox,
    bridge: PretendBridge,
    whatsapp: PretendWhatsApp,
) -> None:
    """A message that the bridge may have sent waits for the bridge, however long it is away."""
    whatsapp.behaviour = "silent"
    bridge.prepare()
    await queue.session.look()
    await store.enqueue(message("baileys"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):
        async with running(bridge.run()):

            async def handed() -> bool:
                return bool(whatsapp.handed)

            await until(handed)
        bridge.write_state(state="logged_out")

        async def waits_for_the_bridge() -> bool:
            return await unsettled(database) == [("due", 1)]

        await until(waits_for_the_bridge)
        whatsapp.behaviour = "ack"
        assert not sandbox.state.messages
        bridge.write_state(state="open")
        async with running(bridge.run()):
            await until_settled(database)
    assert whatsapp.on_phone() == ["Hello"]
    assert len({one.id for one in whatsapp.handed}) == 1


@pytest.mark.parametrize("step", ["taken", "recorded", "sent"])
async def test_bridge_killed(
    step: str,
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    tmp_path: Path,
    sandbox: RunningSandbox,
    bridge: PretendBridge,
    whatsapp: PretendWhatsApp,
) -> None:
    """What a bridge was killed over can be taken back, and moves, only if it had not begun it."""
    bridge.prepare()
    await queue.session.look()
    dying = PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp, die_after=step)
    outbox = tmp_path / "queue/outbox"
    await store.enqueue(message("baileys"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):
        with pytest.raises(BridgeDiedError):
            await dying.run()
        bridge.write_state(state="connecting", account=None)
        async with running(bridge.run()):

            async def given_up() -> bool:
                return not any(any((outbox / one).iterdir()) for one in ("new", "cur", "done"))

            await until(given_up)
            bridge.write_state(state="open", account=ACCOUNT)
            await until_settled(database)
    by_twilio = [one.body for one in sandbox.state.messages.values()]
    assert (whatsapp.on_phone(), by_twilio) == (
        ([], ["Hello"]) if step == "taken" else (["Hello"], [])
    )


async def test_busy(
    database: Database,
    store: SqlOutboxStore,
    tmp_path: Path,
    sandbox: RunningSandbox,
    bridge: PretendBridge,
    whatsapp: PretendWhatsApp,
) -> None:
    """A bridge that is only slow keeps its messages: no more are handed over than have their turn
    in time, and none moves."""
    bridge.prepare()
    bridge.write_state(pace={"min_seconds": 30, "max_seconds": 30})
    for number in range(5):
        await store.enqueue(
            new_message(f"text {number}", to=f"+1555000100{number}", provider="baileys")
        )
    async with (
        # Far longer than the pretended bridge takes even where others use the machine.
        baileys(tmp_path / "queue", patience=30) as queue,
        twilio(sandbox.base_url) as other,
        running(bridge.run()),
    ):
        counted = Counted(queue.provider)
        async with working(store, queue, counted, other, send_timeout=30):
            await until_settled(database)
    assert counted.most == 1
    assert len(whatsapp.on_phone()) == 5
    assert not sandbox.state.messages


async def test_reconnecting(
    database: Database,
    store: SqlOutboxStore,
    queue: Queue,
    sandbox: RunningSandbox,
    bridge: PretendBridge,
    whatsapp: PretendWhatsApp,
) -> None:
    """While the connection is back in a moment, messages wait for it rather than move."""
    bridge.prepare()
    bridge.write_state(state="connecting", reason="restart needed")
    await queue.session.look()
    await store.enqueue(message("baileys"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):

        async def handed_over() -> bool:
            return any((queue.folder.root / "outbox/new").iterdir())

        await until(handed_over)
        bridge.write_state(state="open")
        async with running(bridge.run()):
            await until_settled(database)
    assert whatsapp.on_phone() == ["Hello"]
    assert not sandbox.state.messages


async def test_outside_the_window(
    database: Database, store: SqlOutboxStore, queue: Queue, sandbox: RunningSandbox
) -> None:
    """WhatsApp Web knows no window; a message that Twilio would refuse doesn't move there."""
    stranger = new_message(to="+15550000009", provider="baileys")
    await store.enqueue(stranger)
    await store.enqueue(message("baileys", "inside the window"))
    with pytest.raises(PolicyRefusedError):
        await store.enqueue(new_message(to="+15550000009", provider="twilio"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):

        async def one_left() -> bool:
            return len(await unsettled(database)) == 1

        await until(one_left)
    assert [one.body for one in sandbox.state.messages.values()] == ["inside the window"]
    assert await unsettled(database) == [("due", 0)]


async def test_template(store: SqlOutboxStore) -> None:
    """A template is refused for WhatsApp Web at once, and the refusal says why."""
    template = message("baileys", body="", template=Template("HX1", {}))
    with pytest.raises(PolicyRefusedError, match="has no templates"):
        await store.enqueue(template)


async def test_lid_does_not_move(
    database: Database, store: SqlOutboxStore, queue: Queue, sandbox: RunningSandbox
) -> None:
    """Who is known by a LID alone can be reached by WhatsApp Web only."""
    lid = "123456789012345@lid"
    hidden = replace(
        new_message(provider="baileys"),
        recipient=Identity(IdentityKind.WHATSAPP_LID, lid),
        contact_address=f"whatsapp:{lid}",
    )
    await store.enqueue(hidden)
    await store.enqueue(message("baileys"))
    async with twilio(sandbox.base_url) as other, working(store, queue, queue.provider, other):

        async def one_left() -> bool:
            return len(await unsettled(database)) == 1

        await until(one_left)
    assert len(sandbox.state.messages) == 1
    assert await unsettled(database) == [("due", 0)]
