"""What WhatsApp Web says, from the bridge's inbox to the database."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from services.messaging.domain.opt_out import OptOutWords
from services.messaging.providers.baileys.events import BaileysEvents
from services.messaging.providers.baileys.files import ReceivedFiles
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.inbox import InboxReader
from services.messaging.store.contact_models import ContactRow, ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.files import ObjectMediaStore
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.media import SqlMediaQueue
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.store.work_models import PendingReplyRow
from services.messaging.usecases.fetch_media import FetchMedia
from services.messaging.usecases.receive import Receive, ReplyPolicy
from tests.support.baileys import baileys
from tests.support.bridge import ACCOUNT, PretendBridge, PretendWhatsApp, ago, inbound, text
from tests.support.journal import consuming, dead, journal, publishing
from tests.support.nats import NatsServer
from tests.support.sending import (
    ANY_TIME,
    new_message,
    now,
    running,
    sender,
    stored,
    until,
    until_settled,
)

OWN = "whatsapp:+14155230000"
LID = "123456789012345@lid"
ANSWERS = ReplyPolicy(
    pause=timedelta(seconds=2), max_wait=timedelta(seconds=10), max_age=timedelta(minutes=15)
)


@dataclass(frozen=True)
class Inbox:
    """A running system from the inbox to the database, and the bridge that writes there."""

    bridge: PretendBridge
    root: Path
    client: Client


@pytest.fixture
def bridge(tmp_path: Path) -> PretendBridge:
    bridge = PretendBridge(tmp_path / "queue", tmp_path / "own", PretendWhatsApp())
    bridge.prepare()
    return bridge


@asynccontextmanager
async def reading(root: Path, database: Database, server: NatsServer) -> AsyncIterator[Client]:
    store = SqlIngestStore(database)
    handle = Receive(store, OptOutWords(), replies=ANSWERS, clock=now, on_stored=lambda: None)
    async with journal(server) as client, publishing(client) as publisher:
        reader = InboxReader(QueueFolder(root), publisher, clock=now, registry=CollectorRegistry())
        events = BaileysEvents(account=ACCOUNT, own_address=OWN)
        async with (
            consuming(client, handle, translators={"baileys": events}, join=store.join),
            running(reader.run()),
        ):
            yield client


@pytest.fixture
async def inbox(
    bridge: PretendBridge, database: Database, nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Inbox]:
    async with reading(tmp_path / "queue", database, nats_server) as client:
        yield Inbox(bridge, tmp_path / "queue", client)


async def until_stored(database: Database, count: int) -> list[Any]:
    async def there() -> bool:
        return len(await stored(database)) >= count

    await until(there)
    return await stored(database)


async def until_event(database: Database, message_id: str, kind: str) -> None:
    reader = SqlMessageReader(database)

    async def there() -> bool:
        return kind in [one.kind for one in await reader.history(message_id)]

    await until(there)


async def count(database: Database, table: Any) -> int:
    async with database.read() as connection:
        return await connection.scalar(select(func.count()).select_from(table)) or 0


async def identities(database: Database) -> set[tuple[int, str]]:
    async with database.read() as connection:
        rows = await connection.execute(select(IdentityRow.contact_id, IdentityRow.value))
        return {(row.contact_id, row.value) for row in rows}


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (text("Hello\u0000 \ud83d"), "Hello ?"),
        (
            {
                "type": "location",
                "latitude": 32.8,
                "longitude": 35,
                "name": "Office",
                "address": "Haifa",
                "live": False,
            },
            "Office, Haifa (32.8, 35.0)",
        ),
        ({"type": "contacts", "contacts": [{"name": "Noa", "vcard": "BEGIN:VCARD"}]}, "Noa"),
        ({"type": "unsupported", "name": "pollCreationMessageV3"}, ""),
    ],
)
async def test_message(
    content: dict[str, Any], body: str, inbox: Inbox, database: Database
) -> None:
    """Each kind of message is stored with a text, and the whole of it in its event."""
    inbox.bridge.hear(inbound("3A01", content))
    [row] = await until_stored(database, 1)
    assert (row.body, row.provider, row.provider_message_id) == (body, "baileys", "3A01")
    assert (row.contact_address, row.own_address) == ("whatsapp:+972501234567", OWN)
    assert (row.direction, row.status) == ("inbound", "received")

    async def removed() -> bool:
        return not any((inbox.root / "inbox/cur").iterdir())

    await until(removed)


async def test_media(inbox: Inbox, database: Database) -> None:
    """A file is copied from the folder into our own store, checked by its hash."""
    content = b"a picture"
    sha256 = hashlib.sha256(content).hexdigest()
    inbox.bridge.put_media(content, sha256)
    file = {"sha256": sha256, "size": len(content), "mimetype": "image/jpeg"}
    picture = {"type": "media", "media": "image", "caption": "Look"}
    inbox.bridge.hear(inbound("3A01", {**picture, "file": file}))
    inbox.bridge.hear(inbound("3A02", {**picture, "problem": "too_large: 90 MB"}))
    other = hashlib.sha256(b"else").hexdigest()
    inbox.bridge.put_media(b"not what it says", other)
    inbox.bridge.hear(inbound("3A03", {**picture, "file": {**file, "sha256": other}}))
    await until_stored(database, 3)
    media = ObjectMediaStore(database, inbox.client, clock=now, replicas=1)
    files = FetchMedia(
        SqlMediaQueue(database, now),
        {"baileys": ReceivedFiles(QueueFolder(inbox.root))},
        media,
        clock=now,
        registry=CollectorRegistry(),
        poll_seconds=0.05,
    )

    async def fetched() -> bool:
        rows = await stored(database)
        return all("id" in row.media[0] or "problem" in row.media[0] for row in rows)

    async with running(files.run()):
        await until(fetched)
    by_id = {row.provider_message_id: row for row in await stored(database)}
    assert by_id["3A01"].body == "Look"
    assert by_id["3A01"].media[0]["id"] == sha256
    stored_file = await media.read(sha256)
    assert stored_file is not None
    assert (stored_file.content, stored_file.content_type) == (content, "image/jpeg")
    assert by_id["3A02"].media[0]["problem"] == "too_large: 90 MB"
    assert "not what the bridge said" in by_id["3A03"].media[0]["problem"]


async def test_reply(inbox: Inbox, database: Database) -> None:
    """A reply is linked to the message of the conversation that it quotes."""
    inbox.bridge.hear(inbound("3A01", text("One?")))
    await until_stored(database, 1)
    inbox.bridge.hear(inbound("3A02", text("That one."), reply_to={"id": "3A01", "from_me": False}))
    first, second = await until_stored(database, 2)
    assert second.reply_to_id == first.id


async def test_same_id_twice(inbox: Inbox, database: Database) -> None:
    """However often WhatsApp delivers a message, and in however many files, it is stored once."""
    for _ in range(3):
        inbox.bridge.hear(inbound("3A01", text("Hello")))
    inbox.bridge.hear(inbound("3A02", text("Next")))
    await until_stored(database, 2)
    assert [row.provider_message_id for row in await stored(database)] == ["3A01", "3A02"]


async def test_done_to_a_message(inbox: Inbox, database: Database) -> None:
    """Reactions, edits and deletions are events of their message, also when they come before it;
    the newest edit is its text."""
    of = {"id": "3A01", "from_me": False}
    hear = inbox.bridge.hear
    hear(inbound("3A03", {"type": "edit", "text": "Hello, all", "of": of}, at=ago(1)))
    hear(inbound("3A02", {"type": "edit", "text": "Hello", "of": of}, at=ago(5)))
    hear(inbound("3A04", {"type": "reaction", "emoji": "👍", "of": of}))
    hear(inbound("3A05", {"type": "deletion", "of": of}))
    hear(inbound("3A01", text("Helo"), at=ago(9)))
    [row] = await until_stored(database, 1)
    for kind in ("edit", "reaction", "deletion"):
        # Also without the sweep of what was parked, which comes once a minute.
        await SqlIngestStore(database).apply_parked()
        await until_event(database, row.public_id, kind)
    [row] = await stored(database)
    assert row.body == "Hello, all"
    history = await SqlMessageReader(database).history(row.public_id)
    assert sorted((one.kind.value, one.text) for one in history if one.kind != "received") == [
        ("deletion", None),
        ("edit", "Hello"),
        ("edit", "Hello, all"),
        ("reaction", "👍"),
    ]


async def test_edit_of_somebody_elses_message(inbox: Inbox, database: Database) -> None:
    """Nobody changes what another one wrote."""
    inbox.bridge.hear(inbound("3A01", text("Mine")))
    [row] = await until_stored(database, 1)
    theirs = {"type": "edit", "text": "Yours", "of": {"id": "3A01", "from_me": True}}
    inbox.bridge.hear(inbound("3A02", theirs))

    async def refused() -> bool:
        return len(await dead(inbox.client)) == 1

    await until(refused)
    [row] = await stored(database)
    assert row.body == "Mine"


async def test_lid_learnt_later(inbox: Inbox, database: Database) -> None:
    """Somebody who wrote from behind a LID and from a phone is one person once that is known."""
    inbox.bridge.hear(inbound("3A01", text("From the phone")))
    inbox.bridge.hear(inbound("3A02", text("From behind the LID"), chat=LID))
    rows = await until_stored(database, 2)
    assert len({row.conversation_id for row in rows}) == 2
    assert {row.contact_address for row in rows} == {
        "whatsapp:+972501234567",
        f"whatsapp:{LID}",
    }
    mapping = {"kind": "lid", "lid": LID, "phone": "972501234567@s.whatsapp.net", "at": ago(0)}
    inbox.bridge.hear(mapping)

    async def merged() -> bool:
        return await count(database, ContactRow) == 1

    await until(merged)
    rows = await stored(database)
    assert len({row.conversation_id for row in rows}) == 1
    assert {value for _, value in await identities(database)} == {"+972501234567", LID}


async def test_lid_learnt_first(inbox: Inbox, database: Database) -> None:
    """A mapping that comes before any message holds for those that follow."""
    inbox.bridge.hear(
        {"kind": "lid", "lid": LID, "phone": "972501234567@s.whatsapp.net", "at": ago(0)}
    )

    async def known() -> bool:
        return len(await identities(database)) == 2

    await until(known)
    assert await count(database, ConversationRow) == 0
    inbox.bridge.hear(inbound("3A01", text("One"), chat=LID))
    inbox.bridge.hear(inbound("3A02", text("Two")))
    rows = await until_stored(database, 2)
    assert len({row.conversation_id for row in rows}) == 1


async def test_answers_to_fresh_messages_only(inbox: Inbox, database: Database) -> None:
    """What arrived while we were away is stored, and answered only if it is fresh."""
    old = ago(3600)
    inbox.bridge.hear(inbound("3A01", text("An hour ago"), at=old, delivery="append"))
    await until_stored(database, 1)
    assert await count(database, PendingReplyRow) == 0
    inbox.bridge.hear(inbound("3A02", text("A moment ago"), delivery="append"))
    await until_stored(database, 2)
    assert await count(database, PendingReplyRow) == 1


async def test_owner_answers_on_another_device(inbox: Inbox, database: Database) -> None:
    """What the owner writes on the phone is stored as a person's, and silences the assistant."""
    inbox.bridge.hear(inbound("3A01", text("Anybody there?")))
    await until_stored(database, 1)
    inbox.bridge.hear(inbound("3A02", text("Yes."), direction="out", name="", delivery="append"))
    rows = await until_stored(database, 2)
    [mine] = [row for row in rows if row.provider_message_id == "3A02"]
    assert (mine.direction, mine.author, mine.status) == ("outbound", "person", "sent")
    assert len({row.conversation_id for row in rows}) == 1
    async with database.read() as connection:
        conversation = (await connection.execute(select(ConversationRow.__table__))).one()
    assert conversation.assistant_paused_by == "person"
    assert conversation.unread_count == 1
    assert await count(database, PendingReplyRow) == 0


async def test_statuses(inbox: Inbox, database: Database, bridge: PretendBridge) -> None:
    """Sent comes from the server's acknowledgement, delivered and read from receipts, each with
    WhatsApp's own time, in whatever order they come."""
    store = SqlOutboxStore(database, now, ANY_TIME)
    await store.enqueue(new_message(provider="baileys"))
    async with baileys(inbox.root) as queue:
        one = sender(store, queue.provider, conditions={"baileys": queue.session.condition})
        async with running(bridge.run(), one.dispatcher.run()):
            await until_settled(database)
    [row] = await stored(database)
    about = {"kind": "status", "id": row.provider_message_id}
    bridge.hear({**about, "status": "read", "at": "2026-03-01T12:00:09Z"})
    bridge.hear({**about, "status": "delivered", "at": "2026-03-01T12:00:05Z"})

    async def told() -> bool:
        [row] = await stored(database)
        return row.delivered_at is not None and row.read_at is not None

    await until(told)
    [row] = await stored(database)
    assert row.status == "read"
    assert row.delivered_at == datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
    assert row.read_at == datetime(2026, 3, 1, 12, 0, 9, tzinfo=UTC)
    assert {row.sent_source, row.delivered_source, row.read_source} == {"provider"}


async def test_acknowledgement_settles_what_is_unknown(
    inbox: Inbox, database: Database, bridge: PretendBridge
) -> None:
    """The server's acknowledgement, which carries our own id, settles a send whose answer nobody
    waited for."""
    store = SqlOutboxStore(database, now, ANY_TIME)
    await store.enqueue(new_message(provider="baileys"))
    async with baileys(inbox.root) as queue:
        [claimed] = await store.claim(limit=1, lease=timedelta(seconds=60))
        await asyncio.wait_for(_sent_and_forgotten(queue.provider.send(claimed), bridge), 60)
        await until_settled(database)
    [row] = await stored(database)
    assert row.status == "sent"


async def _sent_and_forgotten(sending: Any, bridge: PretendBridge) -> None:
    task = asyncio.create_task(sending)
    async with running(bridge.run()):
        await task  # Its outcome is written nowhere: messaging is killed here.


async def test_journal_away(
    bridge: PretendBridge, database: Database, nats_server: NatsServer, tmp_path: Path
) -> None:
    """While the journal doesn't answer files wait, and none is lost."""
    async with reading(tmp_path / "queue", database, nats_server):
        bridge.hear(inbound("3A01", text("Before")))
        await until_stored(database, 1)
        nats_server.stop()
        bridge.hear(inbound("3A02", text("Meanwhile")))
        taken = tmp_path / "queue/inbox/cur"

        async def taken_and_kept() -> bool:
            return any(taken.iterdir())

        await until(taken_and_kept)
        nats_server.start()
        await until_stored(database, 2)
