"""Contacts that become one while something is done in a conversation of one of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from services.messaging.domain.message import Author
from services.messaging.ports.answering import ReplyTask
from services.messaging.ports.sending import NewMessage
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.merging import merge_contacts
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.replies import SqlReplyStore
from tests.support.databases import PostgresServer
from tests.support.meeting import meet
from tests.support.receiving import OWN, at, inbound, receive, rows
from tests.support.sending import ANY_TIME, ManualClock, new_message, open_database

CLOCK = ManualClock(at(60))
ANOTHER_OF_OURS = "whatsapp:+15005550006"

Work = Callable[[ReplyTask], Awaitable[None]]
"""What is done in a conversation whose answer is being written."""

either_first = pytest.mark.parametrize("merge_first", [True, False])


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[Database]:
    """PostgreSQL alone: SQLite has one writer at a time anyway."""
    async with open_database(postgres.migrated_database()) as database:
        yield database


@pytest.fixture
def replies(database: Database) -> SqlReplyStore:
    return SqlReplyStore(database, CLOCK, ANY_TIME)


def message_by(author: Author, task: ReplyTask) -> NewMessage:
    return replace(
        new_message(author=author),
        recipient=task.recipient,
        contact_address=task.contact_address,
        own_address=task.own_address,
    )


async def meetings(
    database: Database, work: Work, *, merge_first: bool, own_address: str = OWN
) -> AsyncIterator[None]:
    """Two contacts become one while work is done in the younger's conversation.

    Again and again with others, the second of the two beginning one statement later each time.
    """
    take = receive(SqlIngestStore(database), clock=CLOCK)
    replies = SqlReplyStore(database, CLOCK, ANY_TIME)
    for number in count(1):
        younger = replace(inbound(f"B{number}", address=f"US.{number}"), own_address=own_address)
        await take([inbound(f"A{number}", contact=number)], [])
        await take([younger], [])
        ids = [row["id"] for row in await rows(database, "contacts")][-2:]
        tasks = await replies.claim_replies(
            limit=9, lease=timedelta(minutes=1), context=9, max_answers=60
        )
        [task] = [one for one in tasks if one.contact_address == younger.contact_address]

        async def merge(ids: list[int] = ids) -> None:
            async with database.write() as connection:
                await merge_contacts(connection, ids)

        async def working(task: ReplyTask = task) -> None:
            await work(task)

        both = (merge, working) if merge_first else (working, merge)
        if not await meet(database, *both, after=number):
            assert number > 1
            break
        yield


@either_first
async def test_a_person_silences_the_assistant(database: Database, merge_first: bool) -> None:
    """A person who writes meanwhile takes over the conversation that is left, and nobody fails."""
    outbox = SqlOutboxStore(database, CLOCK, ANY_TIME)

    async def write(task: ReplyTask) -> None:
        await outbox.enqueue(message_by(Author.PERSON, task))

    async for _ in meetings(database, write, merge_first=merge_first):
        conversation = (await rows(database, "conversations"))[-1]
        assert conversation["assistant_paused_by"] == "person"
        assert (await rows(database, "messages"))[-1]["conversation_id"] == conversation["id"]
        assert await rows(database, "pending_replies") == []


@either_first
async def test_an_answer_moves_with_its_conversation(
    database: Database, replies: SqlReplyStore, merge_first: bool
) -> None:
    """An answer is kept, not written anew, when its conversation passes to the other contact."""

    async def answer(task: ReplyTask) -> None:
        assert await replies.answer(task, message_by(Author.ASSISTANT, task)) is not None

    async for _ in meetings(database, answer, merge_first=merge_first, own_address=ANOTHER_OF_OURS):
        assert (await rows(database, "messages"))[-1]["author"] == "assistant"


@either_first
@pytest.mark.parametrize("ends", [True, False])
async def test_a_reply_that_fails_holds_up_no_merge(
    database: Database, replies: SqlReplyStore, merge_first: bool, ends: bool
) -> None:
    """Whether it is given up or tried again: neither side fails, and the contact still waits."""

    async def fail(task: ReplyTask) -> None:
        await (replies.drop(task) if ends else replies.give_back(task, at(90)))

    met = 0
    async for _ in meetings(database, fail, merge_first=merge_first):
        met += 1
        # The older contact's message waits in any case.
        assert len(await rows(database, "pending_replies")) == met
