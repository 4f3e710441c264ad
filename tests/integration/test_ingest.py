"""Storing what arrived."""

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.messaging.domain.contact import Identity, IdentityKind, InboundMessage
from services.messaging.domain.message import Author, MessageStatus
from services.messaging.domain.opt_out import OptOutWords
from services.messaging.ports.reading import MessageFilter
from services.messaging.ports.receiving import IngestResult, ReceivedMessage
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.store.contact_models import IdentityRow
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.store.schema import SCHEMA
from services.messaging.store.work_models import PendingReplyRow
from services.messaging.usecases.receive import Receive
from tests.support.receiving import at, inbound, phone, receive, report, rows, state
from tests.support.sending import ANY_TIME, ManualClock, new_message, open_database, unsettled

LEASE = timedelta(minutes=1)


def clock() -> ManualClock:
    """A clock that stands shortly after the first events."""
    return ManualClock(at(60))


def received(message: InboundMessage) -> ReceivedMessage:
    """A message from which nothing follows."""
    return ReceivedMessage(message, opted_out=None, reply=None)


async def test_a_message_becomes_contact_conversation_message_and_event(database_url: str) -> None:
    """A first message leaves one row of each kind, with everything the provider said."""
    async with open_database(database_url) as database:
        result = await receive(SqlIngestStore(database), clock=clock())(
            [inbound("SM1", body="Is it free?", name="Dana", seconds=5, others=["US.13491208"])], []
        )
        assert result == IngestResult(stored=1, applied=0, parked=0)
        [contact] = await rows(database, "contacts")
        assert (contact["display_name"], contact["named_at"]) == ("Dana", at(5))
        assert len(await rows(database, "contact_identities")) == 2
        [conversation] = await rows(database, "conversations")
        assert conversation["last_message_at"] == conversation["last_inbound_at"] == at(5)
        [message] = await rows(database, "messages")
        assert (message["status"], message["body"]) == ("received", "Is it free?")
        [event] = await rows(database, "message_events")
        assert event["payload"] == {"Body": "Is it free?", "Repeated": ["1", "2"]}
        [pending] = await rows(database, "pending_replies")
        assert (pending["due_at"], pending["latest_at"]) == (at(7), at(15))


async def test_reports_make_nobody_look_for_messages_to_answer(database_url: str) -> None:
    """Messages that were stored are told of at once; reports about messages are not."""
    told: list[None] = []
    async with open_database(database_url) as database:
        take = Receive(
            SqlIngestStore(database),
            OptOutWords(),
            replies=None,
            clock=clock(),
            on_stored=lambda: told.append(None),
        )
        await take([inbound("SM1")], [])
        assert len(told) == 1
        result = await take([], [report("SM1", MessageStatus.READ)])
        assert (result.applied, len(told)) == (1, 1)


async def test_rows_lead_to_what_belongs_to_them(database_url: str) -> None:
    """The models' relationships lead from an event to its message, conversation and contact."""
    async with open_database(database_url) as database:
        await receive(SqlIngestStore(database), clock=clock())([inbound("SM1", name="Dana")], [])
        async with database.read() as connection, AsyncSession(bind=connection) as session:

            def walk(_: object) -> None:
                event = session.sync_session.scalars(select(MessageEventRow)).one()
                conversation = event.message.conversation
                identity = session.sync_session.scalars(select(IdentityRow)).one()
                assert identity.contact is conversation.contact
                assert identity.contact.display_name == "Dana"
                pending = session.sync_session.scalars(select(PendingReplyRow)).one()
                assert (pending.conversation, pending.up_to) == (conversation, event.message)

            await session.run_sync(walk)


async def test_the_same_webhook_a_hundred_times_is_one_row(database_url: str) -> None:
    """Repetition within a batch and over batches adds nothing."""
    async with open_database(database_url) as database:
        take = receive(SqlIngestStore(database), clock=clock())
        for _ in range(10):
            await take([inbound("SM1")] * 5, [report("SM9", MessageStatus.SENT)] * 5)
        for table in ("contacts", "conversations", "messages", "message_events", "parked_statuses"):
            assert len(await rows(database, table)) == 1, table


async def test_a_report_that_comes_first_waits_for_its_message(database_url: str) -> None:
    """A status for a message not yet accepted is parked, and applied when it is known."""
    async with open_database(database_url) as database:
        ingest, outbox = SqlIngestStore(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await outbox.enqueue(new_message())
        [claimed] = await outbox.claim(limit=1, lease=LEASE)
        result = await ingest.ingest([], [report("SM1", MessageStatus.DELIVERED, seconds=9)])
        assert result.parked == 1
        assert await ingest.apply_parked() == 0
        await outbox.settle(
            claimed, SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="SM1"), at(0)
        )
        assert await ingest.apply_parked({"SM1"}) == 1
        [message] = await rows(database, "messages")
        assert (message["status"], message["delivered_at"]) == ("delivered", at(9))
        assert await rows(database, "parked_statuses") == []


async def test_our_own_id_in_a_report_settles_an_unknown_send(database_url: str) -> None:
    """A callback for a send whose answer was lost gives the message its id and ends the send."""
    async with open_database(database_url) as database:
        ingest, outbox = SqlIngestStore(database), SqlOutboxStore(database, clock(), ANY_TIME)
        message, _ = await outbox.enqueue(new_message())
        [claimed] = await outbox.claim(limit=1, lease=LEASE)
        await outbox.settle(claimed, SendOutcome(OutcomeKind.UNKNOWN), at(0))
        await ingest.ingest(
            [],
            [
                report("SM1", MessageStatus.DELIVERED, seconds=2),
                report("SM1", MessageStatus.SENT, seconds=1, message_id=message.id),
            ],
        )
        assert await unsettled(database) == []
        [row] = await rows(database, "messages")
        assert (row["provider_message_id"], row["status"]) == ("SM1", "delivered")
        assert (row["sent_at"], row["delivered_at"]) == (at(1), at(2))


async def test_our_own_id_is_believed_only_where_it_fits(database_url: str) -> None:
    """An id of an inbound message, of another provider's or of a settled one is no proof."""
    async with open_database(database_url) as database:
        ingest, outbox = SqlIngestStore(database), SqlOutboxStore(database, clock(), ANY_TIME)
        sent, _ = await outbox.enqueue(new_message())
        [claimed] = await outbox.claim(limit=1, lease=LEASE)
        accepted = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="SM1")
        await outbox.settle(claimed, accepted, at(0))
        waiting, _ = await outbox.enqueue(new_message("Second"))
        await ingest.ingest([received(inbound("SM5"))], [])
        theirs = next(
            row for row in await rows(database, "messages") if row["direction"] == "inbound"
        )
        before = await state(database)
        result = await ingest.ingest(
            [],
            [
                report("SM2", MessageStatus.READ, message_id=sent.id),
                report("SM3", MessageStatus.READ, message_id=theirs["public_id"]),
                report("SM4", MessageStatus.READ, message_id=waiting.id, provider="baileys"),
                report("SM6", MessageStatus.READ, message_id="no such message"),
            ],
        )
        assert result.parked == 4
        assert {**await state(database), "parked": []} == before


async def test_a_word_we_do_not_know_is_kept_without_effect(database_url: str) -> None:
    """A status that Twilio invents tomorrow is an event of the message and changes nothing."""
    async with open_database(database_url) as database:
        ingest, outbox = SqlIngestStore(database), SqlOutboxStore(database, clock(), ANY_TIME)
        await outbox.enqueue(new_message())
        [claimed] = await outbox.claim(limit=1, lease=LEASE)
        accepted = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="SM1")
        await outbox.settle(claimed, accepted, at(0))
        before = await rows(database, "messages")
        assert (await ingest.ingest([], [report("SM1", None)])).applied == 1
        assert await rows(database, "messages") == before
        assert (await rows(database, "message_events"))[-1]["event_key"] == "status:SM1:None:None"


async def test_opting_out_silences_everything_automatic(database_url: str) -> None:
    """STOP removes the reply that is due and fails what the assistant has queued, no more."""
    async with open_database(database_url) as database:
        outbox = SqlOutboxStore(database, clock(), ANY_TIME)
        take = receive(SqlIngestStore(database), clock=clock())
        await take([inbound("SM1", contact=1, seconds=1)], [])
        to = phone(1)
        automatic = new_message("automatic", to=to)
        await outbox.enqueue(new_message("from a person", to=to))
        await outbox.enqueue(dataclasses.replace(automatic, author=Author.ASSISTANT))
        await take([inbound("SM2", contact=1, seconds=2, body=" stop! ")], [])
        assert await rows(database, "pending_replies") == []
        messages = {row["body"]: row for row in await rows(database, "messages")}
        assert messages["automatic"]["status"] == "failed"
        assert messages["automatic"]["error_code"] == "opted_out"
        assert messages["from a person"]["status"] == "queued"
        assert len(await unsettled(database)) == 1
        [contact] = await rows(database, "contacts")
        assert contact["opted_out_at"] == at(2)
        await take([inbound("SM3", contact=1, seconds=3)], [])
        assert await rows(database, "pending_replies") == []


@pytest.mark.parametrize("late_first", [True, False])
async def test_the_later_wish_holds(database_url: str, late_first: bool) -> None:
    """START after STOP allows messages again, whichever is stored first."""
    events = [
        inbound("SM1", seconds=1, body="STOP"),
        inbound("SM2", seconds=2, body="start"),
    ]
    async with open_database(database_url) as database:
        take = receive(SqlIngestStore(database), clock=clock())
        for event in reversed(events) if late_first else events:
            await take([event], [])
        [contact] = await rows(database, "contacts")
        assert contact["opted_out_at"] is None


async def test_a_burst_puts_the_answer_off_up_to_a_limit(database_url: str) -> None:
    """Each message restarts the pause, and none moves the answer beyond the first one's limit."""
    async with open_database(database_url) as database:
        take = receive(SqlIngestStore(database), clock=clock())
        due = []
        for number, seconds in enumerate([0, 1.5, 3, 9.5]):
            await take([inbound(f"SM{number}", seconds=seconds)], [])
            [pending] = await rows(database, "pending_replies")
            due.append(pending["due_at"])
        assert due == [at(2), at(3.5), at(5), at(10)]
        assert pending["up_to_id"] == max(row["id"] for row in await rows(database, "messages"))


async def test_some_messages_wait_for_a_person(database_url: str) -> None:
    """No automatic answer to a picture without words, to an old message, or without assistant."""
    async with open_database(database_url) as database:
        take = receive(SqlIngestStore(database), clock=clock())
        await take([inbound("SM1", body="  "), inbound("SM2", seconds=-4000)], [])
        await receive(SqlIngestStore(database), clock=clock(), replies=None)([inbound("SM3")], [])
        assert len(await rows(database, "messages")) == 3
        assert await rows(database, "pending_replies") == []


async def test_text_and_parameters_are_stored_as_they_came(database_url: str) -> None:
    """What looks like a part of a document or an escape comes back as it was, however deep."""
    nested: list[object] = []
    for _ in range(500):
        nested = [nested]
    body = 'a "quote", \\u0000, \\\\u0000, {}, \n, \u2028, 🙂 שלום'
    message = dataclasses.replace(
        inbound("SM1", body=body), payload={"Body": body, "Nested": nested}
    )
    async with open_database(database_url) as database:
        await SqlIngestStore(database).ingest([received(message)], [])
        [row] = await rows(database, "messages")
        [event] = await rows(database, "message_events")
        assert (row["body"], row["media"], row["created_at"]) == (body, [], message.received_at)
        assert event["payload"] == message.payload


@pytest.mark.parametrize("body", ["half a pair: \ud800", "NUL: \0"])
async def test_a_value_that_cannot_be_stored_stores_nothing(database_url: str, body: str) -> None:
    """A batch with a value that the database refuses raises ValueError and leaves no trace."""
    bad = inbound("SM2", body=body)
    async with open_database(database_url) as database:
        with pytest.raises(ValueError, match=r"fit its column|surrogates|NUL"):
            await SqlIngestStore(database).ingest([received(inbound("SM1")), received(bad)], [])
        for table in SCHEMA.tables:
            assert await rows(database, table) == [], table


async def test_pages_hold_every_message_once(database_url: str) -> None:
    """Pages of a contact's messages, newest first, neither skip nor repeat while new ones come."""
    async with open_database(database_url) as database:
        take = receive(SqlIngestStore(database), clock=clock())
        for number in range(10):
            await take([inbound(f"SM{number}", contact=number % 2, seconds=number)], [])
        reader = SqlMessageReader(database)
        wanted = MessageFilter(contact=Identity(IdentityKind.PHONE, phone(1)))
        seen: list[str | None] = []
        page = await reader.messages(wanted, limit=2, after=None)
        while True:
            seen += [message.provider_message_id for message in page.messages]
            await take([inbound(f"new{len(seen)}", contact=1, seconds=100)], [])
            if page.following is None:
                break
            page = await reader.messages(wanted, limit=2, after=page.following)
        assert seen == ["SM9", "SM7", "SM5", "SM3", "SM1"]
        everything = await reader.messages(MessageFilter(), limit=100, after=None)
        first = everything.messages[-1]
        assert await reader.message(first.id) == first
        assert await reader.message("unknown") is None


async def test_old_parked_reports_are_dropped(database_url: str) -> None:
    """Reports about messages that never become known are forgotten after a time."""
    async with open_database(database_url) as database:
        ingest = SqlIngestStore(database)
        reports = [report(f"SM{n}", MessageStatus.SENT, seconds=n) for n in range(10)]
        await ingest.ingest([], reports)
        assert await ingest.drop_parked(at(4)) == 4
        assert await ingest.drop_parked(at(4)) == 0
        kept = await rows(database, "parked_statuses")
        assert [row["provider_message_id"] for row in kept] == [f"SM{n}" for n in range(4, 10)]
