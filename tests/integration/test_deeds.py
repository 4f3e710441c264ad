"""What people do to messages by WhatsApp Web: nobody does anything to another contact's."""

import itertools
import json
from typing import Any

import pytest

from services.messaging.consumers.decoding import decode
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import StatusReport
from services.messaging.domain.opt_out import OptOutWords
from services.messaging.providers.baileys.events import BaileysEvents, journal_event
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.usecases.receive import Receive
from tests.support.bridge import ACCOUNT, ago, inbound, text
from tests.support.receiving import clear, rows
from tests.support.sending import now, open_database

PHONE = "972501234567@s.whatsapp.net"
LID = "123456789012345@lid"
STRANGER = "972509999999@s.whatsapp.net"
OF = {"id": "3A01", "from_me": False}
EDIT = {"type": "edit", "text": "Edited", "of": OF}
DEEDS = [EDIT, {"type": "deletion", "of": OF}, {"type": "reaction", "emoji": "👎", "of": OF}]
JOINED = {"kind": "lid", "lid": LID, "phone": PHONE, "at": ago(0)}


async def hear(database: Database, *documents: dict[str, Any], apart: bool = True) -> None:
    """Store what the bridge writes, each in a transaction of its own or all in one."""
    store = SqlIngestStore(database)
    take = Receive(store, OptOutWords(), replies=None, clock=now, on_stored=lambda: None)
    events = BaileysEvents(account=ACCOUNT, own_address=f"whatsapp:{ACCOUNT}")
    found: list[Any] = []
    for document in documents:
        content = json.dumps({"v": 1, "account": ACCOUNT, **document}).encode()
        event = journal_event(content, now())
        headers = event.entry().named_headers()
        found.append(decode(headers, event.data, {"baileys": events}))
    for batch in [[one] for one in found] if apart else [found]:
        for one in batch:
            if isinstance(one, SamePerson):
                await store.join([one])
        await take(
            [one for one in batch if isinstance(one, InboundMessage)],
            [one for one in batch if isinstance(one, StatusReport)],
        )


async def seen(database: Database, message_id: str = "3A01") -> tuple[str, list[str]]:
    """A message's text and what happened to it, after a look at what was parked."""
    await SqlIngestStore(database).apply_parked()
    [row] = [
        one for one in await rows(database, "messages") if one["provider_message_id"] == message_id
    ]
    history = await SqlMessageReader(database).history(row["public_id"])
    return row["body"], sorted(one.kind.value for one in history)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("first", ["message", "deeds"])
async def test_a_stranger_who_knows_the_id(database_url: str, first: str, apart: bool) -> None:
    """Neither before a message nor after it is it changed by who didn't write it."""
    message = inbound("3A01", text("Mine"), chat=PHONE)
    deeds = [
        inbound(f"3B0{number}", content, chat=STRANGER) for number, content in enumerate(DEEDS)
    ]
    async with open_database(database_url) as database:
        order = [message, *deeds] if first == "message" else [*deeds, message]
        await hear(database, inbound("3A00", text("Hello"), chat=STRANGER), *order, apart=apart)
        assert await seen(database) == ("Mine", ["received"])
        # What the stranger did holds up nothing that came later.
        await hear(database, inbound("3C01", EDIT, chat=PHONE))
        assert await seen(database) == ("Edited", ["edit", "received"])


@pytest.mark.parametrize(("wrote_by", "edited_by"), [(PHONE, LID), (LID, PHONE)])
async def test_another_address_of_the_same_person(
    database_url: str, wrote_by: str, edited_by: str
) -> None:
    """An edit counts once its address is known to be the writer's, whatever comes first."""
    message = inbound("3A01", text("Mine"), chat=wrote_by)
    edit = inbound("3B01", EDIT, chat=edited_by)
    async with open_database(database_url) as database:
        for order in itertools.permutations([message, edit, JOINED]):
            await clear(database)
            await hear(database, *order)
            assert await seen(database) == ("Edited", ["edit", "received"])
            assert await rows(database, "parked_statuses") == []
        await clear(database)
        await hear(database, message, edit)
        assert await seen(database) == ("Mine", ["received"])


async def test_an_edit_that_names_both_addresses(database_url: str) -> None:
    """It counts whichever of them is known."""
    async with open_database(database_url) as database:
        for known in (PHONE, LID):
            await clear(database)
            await hear(database, inbound("3A01", text("Mine"), chat=known))
            await hear(database, inbound("3B01", EDIT, chat=LID, chat_alt=PHONE))
            assert await seen(database) == ("Edited", ["edit", "received"])


async def test_what_the_owner_does_on_the_phone(database_url: str) -> None:
    """Our own messages are edited and deleted in the chat that they stand in, and in no other."""
    of = {"id": "3A01", "from_me": True}
    edit = {"type": "edit", "text": "Edited", "of": of}
    async with open_database(database_url) as database:
        await hear(database, inbound("3A01", text("Ours"), direction="out", chat=PHONE))
        await hear(database, inbound("3B01", edit, direction="out", chat=STRANGER))
        assert await seen(database) == ("Ours", ["received"])
        await hear(
            database,
            inbound("3B02", edit, direction="out", chat=PHONE),
            inbound("3B03", {"type": "deletion", "of": of}, direction="out", chat=PHONE),
            # A contact reacts to ours.
            inbound("3B04", {"type": "reaction", "emoji": "👍", "of": of}, chat=PHONE),
        )
        kinds = ["deletion", "edit", "reaction", "received"]
        assert await seen(database) == ("Edited", kinds)


async def test_many_strangers_hold_up_nobody(database_url: str) -> None:
    """What waits in vain, however much, is passed over by the look at what was parked."""
    async with open_database(database_url) as database:
        strange = [inbound(f"3B{number:04}", EDIT, chat=STRANGER) for number in range(501)]
        await hear(database, inbound("3A01", text("Mine"), chat=PHONE), *strange, apart=False)
        await hear(database, inbound("3C01", EDIT, chat=LID), JOINED)
        assert await seen(database) == ("Edited", ["edit", "received"])
