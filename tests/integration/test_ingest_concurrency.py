"""Replicas that store at the same moment: the same events, or what concerns the same messages."""

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import delete, insert, select, text, update

from services.common.errors import UnavailableError
from services.messaging.domain.contact import Identity, IdentityKind, InboundMessage
from services.messaging.domain.message import Author, MessageStatus, StatusReport
from services.messaging.ports.acts import ActConversation, Queued
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.replies import SqlReplyStore
from services.messaging.store.reports import park
from services.messaging.store.restoring import SqlActRestorer
from services.messaging.store.work_models import OutboxRow, PendingReplyRow
from tests.support.databases import PostgresServer, migrated
from tests.support.meeting import meet
from tests.support.receiving import OWN, at, inbound, phone, receive, report, rows, state
from tests.support.sending import ANY_TIME, ManualClock, new_message, open_database, until

SENDS = 20
REPLICAS = 4


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A migrated PostgreSQL database: SQLite has one writer at a time anyway."""
    with postgres.database() as url:
        yield migrated(url)


async def test_replicas_neither_block_each_other_nor_disagree(postgres_url: str) -> None:
    """The same events through several replicas at once, while sends end: no deadlock, no doubles.

    Every batch succeeds at the first try, and the state is the one that a single replica makes.
    """
    chance = random.Random(7)
    clock = ManualClock(at(0))
    async with open_database(postgres_url) as database:
        outbox, ingest = SqlOutboxStore(database, clock, ANY_TIME), SqlIngestStore(database)
        for number in range(SENDS):
            await outbox.enqueue(new_message(f"send {number}", to=phone(number)))
        sends = await outbox.claim(limit=SENDS, lease=timedelta(minutes=5))
        clock.time = at(60)
        messages = [
            inbound(
                f"IN{number}",
                contact=number % (SENDS + 10),
                seconds=number / 10,
                body=chance.choice(["Hello", "How much?", "STOP", "START"]),
                name=f"Name {number}",
            )
            for number in range(300)
        ]
        reports = [
            report(
                f"SM{number}",
                status,
                seconds=number,
                message_id=send.message_id if chance.random() < 0.5 else None,
            )
            for number, send in enumerate(sends)
            for status in (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ)
        ]

        async def replica(seed: int) -> None:
            order = random.Random(seed)
            take = receive(ingest, clock=clock)
            events: list[InboundMessage | StatusReport] = [*messages, *reports]
            order.shuffle(events)
            for start in range(0, len(events), 40):
                batch = events[start : start + 40]
                await take(
                    [one for one in batch if isinstance(one, InboundMessage)],
                    [one for one in batch if isinstance(one, StatusReport)],
                )

        async def settle() -> None:
            for number, send in enumerate(sends):
                accepted = SendOutcome(
                    OutcomeKind.ACCEPTED,
                    provider_message_id=f"SM{number}",
                    status=MessageStatus.QUEUED,
                )
                await outbox.settle(send, accepted, at(60))
                await ingest.apply_parked()

        # A deadlock or a lost race would end the group with an error.
        async with asyncio.TaskGroup() as group:
            for seed in range(REPLICAS):
                group.create_task(replica(seed))
            group.create_task(settle())
        together = await state(database)
        assert len(await rows(database, "contacts")) == SENDS + 10
        assert together["parked"] == together["outbox"] == []
        assert {row["status"] for sid, row in together["messages"].items() if "SM" in sid} == {
            "read"
        }
        # Once more, alone: nothing may be left to change.
        await replica(99)
        assert await state(database) == together


async def test_an_answer_meets_the_next_message(postgres_url: str) -> None:
    """Whoever stores an answer and whoever stores the contact's next message never deadlock.

    Found by killing replicas under load: the next message asked for a reply that another replica
    had asked for since this one looked, and that was being answered.
    """
    clock = ManualClock(at(60))
    async with open_database(postgres_url) as database, open_database(postgres_url) as other:
        take = receive(SqlIngestStore(database), clock=clock)
        await take([inbound("IN1")], [])
        store = SqlReplyStore(database, clock, ANY_TIME)
        [task] = await store.claim_replies(
            limit=1, lease=timedelta(minutes=5), context=1, max_answers=60
        )
        pending = select(*PendingReplyRow.__table__.columns)
        async with other.write() as connection:
            row = (await connection.execute(pending)).one()
            await connection.execute(delete(PendingReplyRow))
        async with asyncio.TaskGroup() as group, other.write() as connection:
            await connection.execute(select(ConversationRow.id).with_for_update(key_share=True))
            group.create_task(take([inbound("IN2", seconds=1)], []))
            await _until_waiting(database, 1)
            async with database.write() as another:
                await another.execute(insert(PendingReplyRow).values(row._mapping))
            group.create_task(store.answer(task, new_message("Yes", to=phone(0))))
            await _until_waiting(database, 2)
        assert len(await rows(database, "messages")) in (2, 3)


async def test_messages_that_are_too_old_meet_new_ones(postgres_url: str) -> None:
    """Whoever fails what has waited too long and whoever stores what comes behind it never
    deadlock, in whatever order the old messages were due."""
    clock = ManualClock(at(0))
    async with open_database(postgres_url) as database:
        store = SqlOutboxStore(database, clock, ANY_TIME)
        first, _ = await store.enqueue(new_message("due later", to=phone(1)))
        await store.enqueue(new_message("due first", to=phone(2)))
        place = OutboxRow.message_id == (
            select(MessageRow.id).where(MessageRow.public_id == first.id).scalar_subquery()
        )
        async with database.write() as connection:
            await connection.execute(update(OutboxRow).where(place).values(due_at=at(60)))
        clock.forward(7 * 3600)

        async def held_up_or_stored() -> bool:
            return storing.done() or await _waiting(database) == 2

        async with database.write() as connection:
            await connection.execute(
                select(OutboxRow.message_id).where(place).with_for_update(read=True, key_share=True)
            )
            claiming = asyncio.create_task(store.claim(limit=5, lease=timedelta(minutes=1)))
            await _until_waiting(database, 1)
            storing = asyncio.gather(
                *(store.enqueue(new_message("new", to=phone(number))) for number in (1, 2))
            )
            await until(held_up_or_stored)
        await asyncio.gather(claiming, storing)
        messages = await rows(database, "messages")
        assert [row["status"] for row in messages] == ["failed", "failed", "queued", "queued"]


async def test_a_parked_report_meets_its_message(postgres_url: str) -> None:
    """Who applies a report whose id another message gets at that moment is told to try again, as
    when the database is away, and can: nothing that looks after reports ends by it."""
    async with open_database(postgres_url) as database:
        store = SqlIngestStore(database)
        outbox = SqlOutboxStore(database, ManualClock(at(0)), ANY_TIME)
        named, _ = await outbox.enqueue(new_message("named by the report", to=phone(1)))
        theirs, _ = await outbox.enqueue(new_message("has its id", to=phone(2)))
        async with database.write() as connection:
            await park(connection, [report("SM1", MessageStatus.SENT, message_id=named.id)])
        async with database.write() as connection:
            await connection.execute(
                update(MessageRow)
                .where(MessageRow.public_id == theirs.id)
                .values(provider_message_id="SM1")
            )
            applying = asyncio.create_task(store.apply_parked())
            await _until_waiting(database, 1)
        with pytest.raises(UnavailableError):
            await applying
        assert await store.apply_parked() == 1


async def _until_waiting(database: Database, transactions: int) -> None:
    """Wait until so many transactions wait for locks."""

    async def waiting() -> bool:
        return await _waiting(database) >= transactions

    await until(waiting)


async def _waiting(database: Database) -> int:
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with database.read() as connection:
        return int(await connection.scalar(query) or 0)


async def test_a_report_meets_the_return_of_its_message(postgres_url: str) -> None:
    """A report that comes while a replay brings its message back settles that, whenever the two
    meet: a message that is with its provider doesn't stay in the outbox, to be sent again."""
    clock = ManualClock(at(60))
    async with open_database(postgres_url) as database:
        take = receive(SqlIngestStore(database), clock=clock)
        restorer = SqlActRestorer(database, clock)
        for number in count(1):
            sid, queued = f"SM{number}", restored(number)

            async def restore(queued: Queued = queued) -> None:
                await restorer.restore([queued])

            async def hear(sid: str = sid, message_id: str = queued.message_id) -> None:
                await take([], [report(sid, MessageStatus.READ, message_id=message_id)])

            if not await meet(database, hear, restore, after=number):
                assert number > 1
                break
            # As a replay does at its end.
            await SqlIngestStore(database).apply_parked()
            message = (await rows(database, "messages"))[-1]
            assert (message["provider_message_id"], message["status"]) == (sid, "read")
            assert await rows(database, "outbox") == []


def restored(number: int) -> Queued:
    """A message as the journal has it, to a contact of its own."""
    conversation = ActConversation(
        id=f"conversation {number}",
        contact_id=f"contact {number}",
        identity=Identity(IdentityKind.PHONE, phone(number)),
        contact_address=f"whatsapp:{phone(number)}",
        own_address=OWN,
        opened_at=at(0),
    )
    return Queued(
        key=f"queued:message {number}",
        at=at(1),
        conversation=conversation,
        message_id=f"message {number}",
        author=Author.API,
        contact_address=conversation.contact_address,
        body="Hello",
        provider="twilio",
    )
