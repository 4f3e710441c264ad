"""A system of one process in a test: it consumes, answers, sends and journals what it does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from nats.aio.client import Client
from sqlalchemy import select

from sandbox.faults import Faults
from sandbox.server import RunningSandbox
from services.common.journal.events import EventKind, JournalEvent
from services.messaging.consumers.acts import ActPublisher
from services.messaging.domain.message import Author, Message
from services.messaging.store.acts import SqlActLog
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.event_models import ConversationEventRow, MessageEventRow
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.replies import SqlReplyStore
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.receive import ReplyPolicy
from tests.support.journal import JOURNAL_BYTES, consuming, publish, settled
from tests.support.receiving import OWN, receive, webhook_event
from tests.support.sandbox import Receiver, running_receiver
from tests.support.sending import (
    ANY_TIME,
    new_message,
    now,
    open_sandbox,
    running,
    sender,
    twilio,
    until,
    until_settled,
)

AT_ONCE = ReplyPolicy(pause=timedelta(), max_wait=timedelta(), max_age=timedelta(hours=1))


def act_publisher(client: Client, database: Database) -> ActPublisher:
    """What brings a database's acts into the journal."""
    return ActPublisher(client, SqlActLog(database, now), replicas=1, max_bytes=JOURNAL_BYTES)


async def all_journaled(database: Database) -> bool:
    """Whether no act waits for the journal."""
    async with database.read() as connection:
        for table in (MessageEventRow, ConversationEventRow):
            if await connection.scalar(select(table.id).where(~table.journaled).limit(1)):
                return False
    return True


@dataclass(frozen=True)
class System:
    """One process of messaging, two providers, and the edge."""

    client: Client
    database: Database
    first: RunningSandbox
    second: RunningSandbox
    _parts: AsyncExitStack

    async def stop(self) -> None:
        """Stop all that works on the database."""
        await self._parts.aclose()

    @property
    def conversations(self) -> SqlConversationStore:
        return SqlConversationStore(self.database, now)

    async def write(self, sid: str, address: str, body: str, **more: str) -> None:
        """A contact writes, and it is stored."""
        await publish(self.client, written(sid, address, body, **more))
        await until(settled(self.client))

    async def send(self, body: str = "Hello", **values: Any) -> Message:
        """Store a message for sending."""
        message, _ = await SqlOutboxStore(self.database, now, ANY_TIME).enqueue(
            new_message(body, **values)
        )
        return message

    async def sent(
        self, body: str = "Hello", faults: Faults | None = None, **values: Any
    ) -> Message:
        """Store a message and wait until nothing is left to be sent."""
        if faults is not None:
            self.first.set_faults(faults)
        message = await self.send(body, **values)
        await until_settled(self.database)
        return message

    async def answer(self, text: str) -> None:
        """The assistant answers whoever waits."""
        store = SqlReplyStore(self.database, now, ANY_TIME)
        for task in await store.claim_replies(
            limit=10, lease=timedelta(minutes=1), context=5, max_answers=60
        ):
            answer = replace(
                new_message(text, author=Author.ASSISTANT),
                recipient=task.recipient,
                contact_address=task.contact_address,
                own_address=task.own_address,
            )
            await store.answer(task, answer)

    async def quiet(self) -> None:
        """Wait until all that was begun has come to its end and into the journal."""
        await until_settled(self.database)
        await until(self._all_read)
        await until(settled(self.client))

        async def journaled() -> bool:
            return await all_journaled(self.database)

        await until(journaled)

    async def _all_read(self) -> bool:
        return all(
            one.status in ("read", "failed", "undelivered")
            for sandbox in (self.first, self.second)
            for one in sandbox.state.messages.values()
        )

    def bodies(self) -> list[str]:
        """What the providers have, by their own lists."""
        return sorted(
            one.body
            for sandbox in (self.first, self.second)
            for one in sandbox.state.messages.values()
        )


def written(sid: str, address: str, body: str, **more: str) -> JournalEvent:
    """What the edge journals when a contact writes."""
    return webhook_event(
        EventKind.WHATSAPP_MESSAGE,
        f"message:{sid}",
        {"MessageSid": sid, "From": address, "To": OWN, "Body": body, **more},
        received_at=now(),
    )


@asynccontextmanager
async def sending(
    database: Database, first: RunningSandbox, second: RunningSandbox, public_host: str
) -> AsyncIterator[None]:
    """Send from a database by two providers, and look up what isn't known."""
    ingest = SqlIngestStore(database)
    async with (
        twilio(first.base_url, seconds=0.5, public_host=public_host) as primary,
        # Nobody takes its callbacks: they would come under the first one's name.
        twilio(second.base_url, seconds=0.5, name="other") as other,
    ):
        process = sender(
            SqlOutboxStore(database, now, ANY_TIME),
            primary,
            other,
            on_accepted=ingest.apply_parked,
        )
        async with running(process.dispatcher.run(), process.reconciler.run()):
            yield


@asynccontextmanager
async def running_system(client: Client, database: Database) -> AsyncIterator[System]:
    """Run all of it while the context lasts."""
    async with (
        running_receiver() as receiver,
        open_sandbox(webhook_url=receiver.base_url, public_host=receiver.base_url) as first,
        open_sandbox() as second,
        AsyncExitStack() as parts,
    ):
        live = receive(SqlIngestStore(database), clock=now, replies=AT_ONCE)
        for part in (
            consuming(client, live),
            running(_journal_callbacks(client, receiver), act_publisher(client, database).run()),
            sending(database, first, second, receiver.base_url),
        ):
            await parts.enter_async_context(part)
        yield System(client, database, first, second, parts)


async def _journal_callbacks(client: Client, receiver: Receiver) -> None:
    seen = 0
    while True:
        if seen == len(receiver.received):
            await asyncio.sleep(0.01)
            continue
        webhook = receiver.received[seen]
        seen += 1
        form = dict(webhook.form.multi_items())
        await publish(
            client,
            webhook_event(
                EventKind.WHATSAPP_STATUS,
                f"status:{form['MessageSid']}:{form['MessageStatus']}",
                form,
                query=dict(parse_qsl(webhook.query)),
                received_at=now(),
            ),
        )


async def outbox_states(database: Database) -> Sequence[tuple[str, bool]]:
    """State of each unsettled send, and whether it came from the journal."""
    async with database.read() as connection:
        rows = await connection.execute(
            select(OutboxRow.state, OutboxRow.restored).order_by(OutboxRow.message_id)
        )
        return [(row.state, row.restored) for row in rows]
