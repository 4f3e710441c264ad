"""Files that go out by the Baileys bridge: fetched by messaging, guarded, and checked."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from services.messaging.domain.message import Media
from services.messaging.ports.sending import ClaimedSend, OutcomeKind
from services.messaging.providers.baileys.documents import SendMedia
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.baileys import baileys
from tests.support.bridge import PretendBridge, PretendWhatsApp
from tests.support.hostile import Answer, endless, file, garbage, hostile, sends_to, status
from tests.support.sending import ANY_TIME, new_message, now, running


async def claimed(database: Database, url: str) -> ClaimedSend:
    store = SqlOutboxStore(database, now, ANY_TIME)
    media = (Media(url, "image/png"),)
    await store.enqueue(new_message("Our house", provider="baileys", media=media))
    [claimed] = await store.claim(limit=1, lease=timedelta(minutes=1))
    return claimed


async def test_sent(database: Database, tmp_path: Path) -> None:
    """The bridge gets the file itself, under its hash, and never an address to fetch from."""
    whatsapp = PretendWhatsApp()
    bridge = PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp)
    bridge.prepare()
    async with hostile(file) as host, baileys(tmp_path / "queue") as queue, running(bridge.run()):
        message = await claimed(database, f"{host.base_url}/houses/our%20house.png")
        outcome = await queue.provider.send(message)
    assert outcome.kind is OutcomeKind.ACCEPTED
    [send] = whatsapp.handed
    assert isinstance(send.content, SendMedia)
    assert (send.content.media, send.content.caption) == ("image", "Our house")
    assert (send.content.filename, send.content.file.mimetype) == ("our house.png", "image/png")
    sha256 = hashlib.sha256(b"data").hexdigest()
    assert (send.content.file.sha256, send.content.file.size) == (sha256, 4)
    assert (tmp_path / "queue/media" / sha256).read_bytes() == b"data"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (status("404 Not Found"), OutcomeKind.REJECTED, "bad_media"),
        (status("503 Service Unavailable"), OutcomeKind.RETRY, "media_unavailable"),
        (endless, OutcomeKind.REJECTED, "bad_media"),
        (garbage, OutcomeKind.RETRY, "media_unavailable"),
        (sends_to("{here}/again"), OutcomeKind.REJECTED, "bad_media"),
        (sends_to("http://10.0.0.1/file"), OutcomeKind.REJECTED, "bad_media"),
    ],
)
async def test_not_to_be_had(
    answer: Answer, kind: OutcomeKind, code: str, database: Database, tmp_path: Path
) -> None:
    """A file that can't be had fails its message or makes it wait, and nothing is sent."""
    whatsapp = PretendWhatsApp()
    bridge = PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp)
    bridge.prepare()
    async with hostile(answer) as host, baileys(tmp_path / "queue") as queue:
        message = await claimed(database, f"{host.base_url}/file")
        outcome = await queue.provider.send(message)
    assert (outcome.kind, outcome.error_code) == (kind, code)
    assert not list((tmp_path / "queue/outbox/new").iterdir())
