"""What tests of replaying share: a journal, a database that follows it, and what readers see."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from services.common.journal.events import JournalEvent
from services.messaging.ports.reading import MessageFilter
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.usecases.receive import Receive
from tests.support.cli import MESSAGING, Ended, ended, start
from tests.support.journal import consuming, publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import receive
from tests.support.sending import now, until


class Setup:
    """A journal, and a database that consumes it live."""

    def __init__(self, server: NatsServer, client: Client, database: Database, folder: Path):
        self.server = server
        self.client = client
        self.database = database
        self._folder = folder

    async def consume(self, *events: JournalEvent, duplicates: int = 1) -> None:
        """Journal events and have them stored."""
        await publish(self.client, *events, duplicates=duplicates)
        async with consuming(self.client, live(self.database)):
            await until(settled(self.client))

    async def start(self, *options: str, into: str) -> asyncio.subprocess.Process:
        """`switchboard replay` into a database."""
        environ = {**MESSAGING, "NATS_URL": self.server.url, "DATABASE_URL": into}
        return await start("replay", *options, folder=self._folder, environ=environ)

    async def replay(self, *options: str, into: str) -> Ended:
        """`switchboard replay` to its end."""
        return await ended(await self.start(*options, into=into))


def live(database: Database) -> Receive:
    """The use case as messaging runs it, but for the assistant."""
    return receive(SqlIngestStore(database), clock=lambda: datetime.now(UTC), replies=None)


async def public_state(database: Database) -> dict[str, Any]:
    """What readers see of conversations, messages and their histories, ids included."""
    reader, conversations = SqlMessageReader(database), SqlConversationStore(database, now)
    page = await conversations.conversations(limit=1000, after=None)
    messages = (await reader.messages(MessageFilter(), limit=10_000, after=None)).messages
    return {
        "conversations": {
            one.id: {
                **{name: getattr(one, name) for name in one.__slots__ if name != "contact"},
                "contact": (
                    one.contact.id,
                    one.contact.display_name,
                    frozenset(one.contact.identities),
                    one.contact.opted_out_at,
                ),
            }
            for one in page.conversations
        },
        "messages": {one.id: one for one in messages},
        "histories": {
            one.id: sorted(
                (
                    event.moment.at,
                    event.kind.value,
                    str(event.status),
                    str(event.outcome),
                    event.provider,
                    str(event.error_code),
                    str(event.error_message),
                    str(event.origin),
                )
                for event in await reader.history(one.id)
            )
            for one in messages
        },
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    """Where two public states differ: the path, and both values."""
    found: list[Any] = []
    for part in one:
        for key in sorted(one[part].keys() | other[part].keys()):
            values = one[part].get(key), other[part].get(key)
            if values[0] != values[1]:
                found.append((part, key, *values))
    return found
