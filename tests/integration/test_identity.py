"""Contacts that turn out to be one person."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import PolicyRefusedError
from services.messaging.domain.contact import Identity, IdentityKind, InboundMessage
from services.messaging.domain.message import Author, MessageStatus
from services.messaging.ports.sending import NewMessage, OutcomeKind, SendOutcome
from services.messaging.store.acts import SqlActLog
from services.messaging.store.changes import SqlChangeReader
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.merging import merge_contacts
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.pausing import conversation_key
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.receive import Receive
from tests.support.databases import PostgresServer, migrated
from tests.support.receiving import OWN, at, inbound, phone, receive, report, rows, state
from tests.support.sending import (
    ANY_TIME,
    ManualClock,
    new_message,
    open_database,
    unsettled,
    until,
)

USER_ID = "US.13491208655302"
LEASE = timedelta(minutes=1)


def clock() -> ManualClock:
    """A clock that stands shortly after the first events."""
    return ManualClock(at(60))


def ingest(database: Database) -> Receive:
    """The use case, with an assistant."""
    return receive(SqlIngestStore(database), clock=clock())


def by_number(sid: str, seconds: float = 0, **more: Any) -> InboundMessage:
    """A message that shows the contact's number alone."""
    return inbound(sid, contact=1, seconds=seconds, **more)


def by_user_id(sid: str, seconds: float = 0, **more: Any) -> InboundMessage:
    """A message that shows the contact's user id alone."""
    return inbound(sid, contact=1, seconds=seconds, address=USER_ID, **more)


def by_both(sid: str, seconds: float = 0, **more: Any) -> InboundMessage:
    """A message that shows both: now they are known to be one person's."""
    return inbound(sid, contact=1, seconds=seconds, others=[USER_ID], **more)


def to_user_id(body: str, **more: Any) -> NewMessage:
    """A message to the contact's user id."""
    return NewMessage(
        recipient=Identity(IdentityKind.WHATSAPP_BSUID, USER_ID),
        contact_address=f"whatsapp:{USER_ID}",
        own_address=OWN,
        provider="twilio",
        author=more.pop("author", Author.API),
        body=body,
        **more,
    )


async def test_a_message_that_names_two_contacts_makes_them_one(database_url: str) -> None:
    """Every message, event, send and file stays; the older contact and conversation go on."""
    async with open_database(database_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1, name="Dana")], [])
        await take([by_user_id("SM2", 2, name="Dana L.")], [])
        await take([by_user_id("SM3", 3)], [])
        older, younger = await rows(database, "conversations")
        await outbox.enqueue(new_message("to the number", to=phone(1)))
        await outbox.enqueue(to_user_id("to the user id"))
        before = {row["public_id"]: row for row in await rows(database, "messages")}
        events = await rows(database, "message_events")
        await take([by_both("SM4", 4)], [])

        [contact] = await rows(database, "contacts")
        [conversation] = await rows(database, "conversations")
        assert conversation["public_id"] == older["public_id"]
        assert contact["display_name"] == "Dana L."
        assert conversation["unread_count"] == 4
        identities = await rows(database, "contact_identities")
        assert {(row["kind"], row["value"]) for row in identities} == {
            ("phone", phone(1)),
            ("whatsapp_bsuid", USER_ID),
        }
        messages = await rows(database, "messages")
        assert len(messages) == 6
        assert {row["conversation_id"] for row in messages} == {conversation["id"]}
        for row in messages:
            known = before.get(row["public_id"], row)
            assert {**row, "conversation_id": 0} == {**known, "conversation_id": 0}
        assert (await rows(database, "message_events"))[: len(events)] == events
        places = await rows(database, "outbox")
        assert {row["conversation_id"] for row in places} == {conversation["id"]}
        # An id that somebody has kept still works.
        async with database.read() as connection:
            found = await conversation_key(connection, younger["public_id"])
        assert found == conversation["id"]


async def test_ids_lead_on_through_several_merges(database_url: str) -> None:
    """An id of a conversation that was merged, and merged again, leads to the one that is left."""
    async with open_database(database_url) as database:
        take = ingest(database)
        await take([inbound("SM1", contact=1, seconds=1)], [])
        await take([inbound("SM2", address="US.2", seconds=2)], [])
        await take([inbound("SM3", address="US.ENT.3", seconds=3)], [])
        ids = [row["public_id"] for row in await rows(database, "conversations")]
        await take([inbound("SM4", address="US.2", others=["US.ENT.3"], seconds=4)], [])
        assert len(await rows(database, "contacts")) == 2
        await take([inbound("SM5", contact=1, others=["US.ENT.3"], seconds=5)], [])
        [conversation] = await rows(database, "conversations")
        async with database.read() as connection:
            found = {await conversation_key(connection, one) for one in ids}
        assert found == {conversation["id"]}
        assert len(await rows(database, "messages")) == 5


async def test_one_message_may_join_many(database_url: str) -> None:
    """A batch whose messages join several contacts in a chain merges them all at once."""
    async with open_database(database_url) as database:
        take = ingest(database)
        for number in range(6):
            await take([inbound(f"SM{number}", contact=number, seconds=number)], [])
        links = [
            inbound(f"L{number}", contact=number, others=[phone(number + 1)], seconds=10 + number)
            for number in range(5)
        ]
        random.Random(1).shuffle(links)
        await take(links, [])
        assert len(await rows(database, "contacts")) == 1
        assert len(await rows(database, "messages")) == 11
        assert len(await rows(database, "conversation_aliases")) == 5


async def test_conversations_with_other_addresses_of_ours_stay_apart(database_url: str) -> None:
    """Only conversations with the same address of ours become one."""
    other = "whatsapp:+15005550006"
    async with open_database(database_url) as database:
        take = ingest(database)
        await take([by_number("SM1", 1)], [])
        await take([by_user_id("SM2", 2)], [])
        async with database.write() as connection:
            await connection.execute(
                update(ConversationRow)
                .where(ConversationRow.contact_address == f"whatsapp:{USER_ID}")
                .values(own_address=other)
            )
        await take([by_both("SM3", 3)], [])
        [contact] = await rows(database, "contacts")
        conversations = await rows(database, "conversations")
        assert {row["own_address"] for row in conversations} == {OWN, other}
        assert {row["contact_id"] for row in conversations} == {contact["id"]}
        assert await rows(database, "conversation_aliases") == []


@pytest.mark.parametrize("later", ["STOP", "START"])
async def test_the_later_wish_of_either_holds_for_both(database_url: str, later: str) -> None:
    """Who opted out under one name is opted out under all, unless the last word was another."""
    earlier = "START" if later == "STOP" else "STOP"
    async with open_database(database_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1)], [])
        automatic = to_user_id("automatic", author=Author.ASSISTANT)
        await take([by_number("SM2", 5, body=later)], [])
        await take([by_user_id("SM3", 2, body=earlier)], [])
        if earlier == "START":
            await outbox.enqueue(automatic)
        await take([by_both("SM4", 6, body="")], [])
        [contact] = await rows(database, "contacts")
        assert (contact["opted_out_at"] is not None) == (later == "STOP")
        assert (contact["last_opt_out_at"], contact["last_opt_in_at"]) == (
            (at(5), at(2)) if later == "STOP" else (at(2), at(5))
        )
        if later == "STOP":
            assert await rows(database, "pending_replies") == []
            [sent] = [row for row in await rows(database, "messages") if row["author"] != "contact"]
            assert (sent["status"], sent["error_code"]) == ("failed", "opted_out")


async def test_a_pause_of_either_holds_for_both(database_url: str) -> None:
    """Where a person has taken over, the assistant stays silent after a merge."""
    async with open_database(database_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1)], [])
        await take([by_user_id("SM2", 2)], [])
        await outbox.enqueue(to_user_id("A person here", author=Author.PERSON))
        assert len(await rows(database, "pending_replies")) == 1
        await take([by_both("SM3", 3)], [])
        [conversation] = await rows(database, "conversations")
        assert conversation["assistant_paused_by"] == "person"
        assert await rows(database, "pending_replies") == []


async def test_two_waits_become_one_answer(database_url: str) -> None:
    """What waits in both conversations gets one answer; one being written is made anew."""
    async with open_database(database_url) as database:
        take, replies = ingest(database), SqlReplyStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1), by_user_id("SM2", 2)], [])
        [first, second] = await replies.claim_replies(
            limit=5, lease=LEASE, context=10, max_answers=60
        )
        await take([by_both("SM3", 3)], [])
        [pending] = await rows(database, "pending_replies")
        assert (pending["due_at"], pending["latest_at"]) == (at(5), at(11))
        for task in (first, second):
            answer = to_user_id("An answer", author=Author.ASSISTANT)
            # The contact has written more than these answers know of.
            pending_before = await rows(database, "pending_replies")
            late = SqlReplyStore(database, lambda: at(4), ANY_TIME)
            assert await late.answer(task, answer) is None
            assert len(await rows(database, "pending_replies")) == len(pending_before)
        [task] = await replies.claim_replies(limit=5, lease=LEASE, context=10, max_answers=60)
        assert [turn.body for turn in task.turns] == ["Hello"] * 3
        assert await replies.answer(task, to_user_id("Once", author=Author.ASSISTANT)) is not None
        assert await rows(database, "pending_replies") == []


async def test_sends_under_way_end_as_they_would_have(database_url: str) -> None:
    """A send of a conversation that goes is settled, and those behind it go out one at a time."""
    async with open_database(database_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1)], [])
        await take([by_user_id("SM2", 2)], [])
        for number in range(2):
            await outbox.enqueue(new_message(f"number {number}", to=phone(1)))
            await outbox.enqueue(to_user_id(f"user id {number}"))
        [first] = await outbox.claim(limit=1, lease=LEASE)
        assert first.body == "number 0"
        await take([by_both("SM3", 3)], [])
        # One of the joined conversation is under way.
        assert await outbox.claim(limit=5, lease=LEASE) == ()
        sent = []
        claimed = [first]
        while claimed:
            [one] = claimed
            sent.append(one.body)
            accepted = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id=f"OUT{len(sent)}")
            await outbox.settle(one, accepted, at(90))
            claimed = list(await outbox.claim(limit=5, lease=LEASE))
        assert sent == ["number 0", "user id 0", "number 1", "user id 1"]
        assert await unsettled(database) == []


async def test_a_younger_send_under_way_holds_up_an_older_one(database_url: str) -> None:
    """At most one message of a conversation is under way, also when the merge reorders them."""
    async with open_database(database_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1)], [])
        await take([by_user_id("SM2", 2)], [])
        await outbox.enqueue(new_message("older", to=phone(1)))
        [older] = await outbox.claim(limit=5, lease=LEASE)
        await outbox.enqueue(to_user_id("younger"))
        [younger] = await outbox.claim(limit=5, lease=LEASE)
        retry = SendOutcome(OutcomeKind.RETRY)
        await outbox.settle(older, retry, at(0))
        await take([by_both("SM3", 3)], [])
        assert await outbox.claim(limit=5, lease=LEASE) == ()
        await outbox.settle(younger, SendOutcome(OutcomeKind.UNKNOWN), at(0))
        assert await outbox.claim(limit=5, lease=LEASE) == ()
        accepted = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="OUT1")
        await outbox.settle(younger, accepted, at(0))
        [again] = await outbox.claim(limit=5, lease=LEASE)
        assert again.body == "older"


async def test_user_names_pass_on_and_join_nobody(database_url: str) -> None:
    """A user name is its last bearer's, whichever message is stored first, and merges nothing."""
    messages = [
        inbound("SM1", contact=1, seconds=1, user_name="@Dana.L"),
        inbound("SM2", contact=2, seconds=2, user_name="dana.l"),
        inbound("SM3", contact=1, seconds=3, user_name="dana.l"),
        inbound("SM4", contact=2, seconds=2.5),
    ]
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [1, 2, 3, 0]):
        async with open_database(database_url) as database:
            take = ingest(database)
            for index in order:
                await take([messages[index]], [])
            assert len(await rows(database, "contacts")) == 2
            result = await state(database)
            bearers = [row for row in result["identities"] if row[0] == "whatsapp_username"]
            assert [row[1] for row in bearers] == ["dana.l"]
            assert ("phone", phone(1)) in bearers[0][3]


async def test_merging_what_others_have_merged_changes_nothing(database_url: str) -> None:
    """Contacts that are gone already are passed over."""
    async with open_database(database_url) as database:
        take = ingest(database)
        await take([by_number("SM1", 1)], [])
        await take([by_user_id("SM2", 2)], [])
        ids = [row["id"] for row in await rows(database, "contacts")]
        await take([by_both("SM3", 3)], [])
        before = await state(database)
        async with database.write() as connection:
            await merge_contacts(connection, ids)
        assert await state(database) == before


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A migrated PostgreSQL database: SQLite has one writer at a time anyway."""
    with postgres.database() as url:
        yield migrated(url)


async def read_acts(database: Database) -> set[str]:
    log = SqlActLog(database, clock())
    return {act.key for act in await log.unjournaled(limit=9, lease_seconds=0)}


async def read_conversation(database: Database) -> set[str]:
    user = Identity(IdentityKind.WHATSAPP_BSUID, USER_ID)
    found = await SqlConversationStore(database, clock()).conversation_with(user)
    return {one.value for one in found.contact.identities}


async def read_conversations(database: Database) -> set[str]:
    page = await SqlConversationStore(database, clock()).conversations(limit=9, after=None)
    return {one.value for found in page.conversations for one in found.contact.identities}


async def read_changes(database: Database) -> set[str]:
    user = Identity(IdentityKind.WHATSAPP_BSUID, USER_ID)
    page = await SqlChangeReader(database).after((0, 0), limit=9, contact=user)
    return {one.message.body for one in page.changes}


@pytest.mark.parametrize("read", [read_acts, read_conversation, read_conversations, read_changes])
async def test_who_reads_meanwhile_sees_none_of_a_merge(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Database], Awaitable[set[str]]],
) -> None:
    """Two contacts that become one between two statements are still two for the second."""
    async with open_database(database_url) as database:
        take = ingest(database)
        await take([by_number("SM1", body="By number"), by_user_id("SM2", 1, body="By id")], [])
        expected = await read(database)
        merged = asyncio.Event()
        execute = AsyncConnection.execute

        async def merging(self: AsyncConnection, *values: Any, **named: Any) -> Any:
            result = await execute(self, *values, **named)
            if not merged.is_set():
                merged.set()
                await take([by_both("SM3", 2)], [])
            return result

        monkeypatch.setattr(AsyncConnection, "execute", merging)
        assert expected
        assert await read(database) == expected
        assert await rows(database, "conversation_aliases")


async def test_a_send_that_meets_a_merge_goes_to_the_one_who_is_left(postgres_url: str) -> None:
    """A send that waits for the merge of its contact is stored in the conversation that goes on."""
    async with open_database(postgres_url) as database:
        take, outbox = ingest(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await take([by_number("SM1", 1), by_user_id("SM2", 2)], [])
        survivor, _ = await rows(database, "conversations")
        async with database.write() as connection:
            ids = [row["id"] for row in await rows(database, "contacts")]
            await merge_contacts(connection, ids)
            sending = asyncio.create_task(outbox.enqueue(to_user_id("hello")))
            await until(lambda: _somebody_waits_for_a_lock(database))
        message, new = await sending
        assert new
        assert message.conversation_id == survivor["public_id"]


async def _somebody_waits_for_a_lock(database: Database) -> bool:
    async with database.read() as connection:
        return bool(await connection.scalar(text("SELECT 1 FROM pg_locks WHERE NOT granted")))


async def test_replicas_merge_while_others_write_and_send(postgres_url: str) -> None:
    """Merges, messages, sends, their outcomes and reports at once: no deadlock, nothing lost.

    The end is the one that a single process comes to.
    """
    people = 12
    chance = random.Random(3)
    user_ids = [f"US.1349120{number:07d}" for number in range(people)]
    messages: list[InboundMessage] = []
    for number in range(240):
        person = number % people
        shown = chance.choice(["number", "user id", "user id", "both"])
        messages.append(
            inbound(
                f"IN{number}",
                contact=person,
                seconds=number / 10,
                body=chance.choice(["Hello", "How much?", "STOP", "START"]),
                name=f"Name {number}",
                user_name=chance.choice(["", f"user{person}", f"user{(person + 1) % people}"]),
                address=user_ids[person] if shown == "user id" else None,
                others=[user_ids[person]] if shown == "both" else [],
            )
        )
    # In the end everybody is one person.
    messages += [
        inbound(f"END{n}", contact=n, seconds=50, others=[user_ids[n]]) for n in range(people)
    ]
    time = clock()
    async with open_database(postgres_url) as database:
        outbox = SqlOutboxStore(database, time, ANY_TIME)

        async def replica(seed: int) -> None:
            take = ingest(database)
            events = list(messages)
            random.Random(seed).shuffle(events)
            for start in range(0, len(events), 16):
                await patiently(take, events[start : start + 16])

        async def patiently(take: Receive, batch: list[InboundMessage]) -> None:
            await take(batch, [report(f"OUT{n}", MessageStatus.SENT, seconds=1) for n in range(5)])

        sent: list[str] = []

        async def send() -> None:
            for number in range(60):
                person = number % people
                recipient = (
                    new_message(f"to {number}", to=phone(person))
                    if number % 2
                    else NewMessage(
                        recipient=Identity(IdentityKind.WHATSAPP_BSUID, user_ids[person]),
                        contact_address=f"whatsapp:{user_ids[person]}",
                        own_address=OWN,
                        provider="twilio",
                        author=Author.API,
                        body=f"to {number}",
                    )
                )
                await enqueued(recipient)
                for one in await outbox.claim(limit=3, lease=LEASE):
                    sent.append(one.body)
                    await outbox.settle(
                        one,
                        SendOutcome(
                            OutcomeKind.ACCEPTED,
                            provider_message_id=f"OUT{len(sent)}",
                            status=MessageStatus.QUEUED,
                        ),
                        at(90),
                    )

        async def enqueued(message: NewMessage) -> None:
            try:
                await outbox.enqueue(message)
            except PolicyRefusedError:
                refused.append(message.body)

        refused: list[str] = []
        async with asyncio.TaskGroup() as group:
            for seed in range(4):
                group.create_task(replica(seed))
            group.create_task(send())
        while claimed := await outbox.claim(limit=10, lease=LEASE):
            for one in claimed:
                sent.append(one.body)
                accepted = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id=f"OUT{len(sent)}")
                await outbox.settle(one, accepted, at(90))
        assert len(await rows(database, "contacts")) == people
        assert len(await rows(database, "conversations")) == people
        stored = await rows(database, "messages")
        assert len([row for row in stored if row["direction"] == "inbound"]) == len(messages)
        failed = [row["body"] for row in stored if row["error_code"] == "opted_out"]
        assert sorted(sent + refused + failed) == sorted(f"to {number}" for number in range(60))
        assert await unsettled(database) == []
        together = await state(database)
        # Once more, alone: nothing may be left to change.
        await replica(99)
        assert await state(database) == together
