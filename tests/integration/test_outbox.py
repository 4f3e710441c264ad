"""The outbox on both databases."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from services.common.errors import IdempotencyConflictError, PolicyRefusedError
from services.messaging.domain.message import Media, MessageStatus, Template
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ContactRow, ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.store.queueing import Queueing, insert_queued, select_conversations
from tests.support.sending import (
    ANY_TIME,
    ManualClock,
    events,
    new_message,
    stored,
    unsettled,
)

LEASE = timedelta(seconds=60)
SID = "SM" + "1" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SqlOutboxStore:
    return SqlOutboxStore(database, clock, ANY_TIME)


async def claim_one(store: SqlOutboxStore) -> ClaimedSend:
    [message] = await store.claim(limit=10, lease=LEASE)
    return message


def accepted(sid: str = SID, status: MessageStatus | None = None) -> SendOutcome:
    return SendOutcome(OutcomeKind.ACCEPTED, provider_message_id=sid, status=status)


RETRY = SendOutcome(OutcomeKind.RETRY, error_code="20429")
UNKNOWN = SendOutcome(OutcomeKind.UNKNOWN, error_code="timeout")
REJECTED = SendOutcome(OutcomeKind.REJECTED, error_code="21211", error_message="Invalid 'To'")


async def test_what_is_stored_is_handed_back_as_it_is_read(
    store: SqlOutboxStore, database: Database
) -> None:
    """Whoever has a message sent is told of it what reading it tells."""
    first, _ = await store.enqueue(new_message("Hello \N{WAVING HAND SIGN}"))
    file = Media("https://files.example/a.jpg", "image/jpeg")
    reply, _ = await store.enqueue(new_message(media=(file,), reply_to_message_id=first.id))
    template, _ = await store.enqueue(new_message("", template=Template("HX1", {"1": "Dana"})))
    reader = SqlMessageReader(database)
    for message in (first, reply, template):
        assert await reader.message(message.id) == message


async def test_message_is_queued_claimed_and_accepted(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """A message goes from queued over sending to the provider's id, each step recorded."""
    message, new = await store.enqueue(new_message())
    assert new
    assert message.delivery.status is MessageStatus.QUEUED
    claimed = await claim_one(store)
    assert (claimed.message_id, claimed.attempt, claimed.body) == (message.id, 1, "Hello")
    assert claimed.lease_until == clock() + LEASE
    assert [row.status for row in await stored(database)] == ["sending"]
    await store.settle(claimed, accepted(), clock())
    assert await unsettled(database) == []
    [row] = await stored(database)
    assert (row.provider_message_id, row.status) == (SID, "sending")
    assert await events(database, message.id) == ["queued", "attempt", "accepted"]
    assert await store.known_provider_ids("twilio", [SID, "SM2"]) == {SID}


async def test_rejected_message_fails_with_the_providers_words(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """A permanent refusal fails the message and leaves nothing to be tried."""
    await store.enqueue(new_message())
    await store.settle(await claim_one(store), REJECTED, clock())
    [row] = await stored(database)
    assert (row.status, row.error_code, row.error_message) == ("failed", "21211", "Invalid 'To'")
    assert row.failed_at == clock()
    assert await unsettled(database) == []


async def test_retry_waits_until_its_time(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """A message that certainly wasn't sent is due again at the given time, not earlier."""
    await store.enqueue(new_message())
    first = await claim_one(store)
    await store.settle(first, RETRY, clock() + timedelta(seconds=10))
    clock.forward(9.9)
    assert await store.claim(limit=10, lease=LEASE) == ()
    clock.forward(0.1)
    second = await claim_one(store)
    assert second.attempt == 2
    assert second.first_attempt_at == first.first_attempt_at
    assert second.last_attempt_at == clock()


async def test_unknown_message_is_never_claimed(store: SqlOutboxStore, clock: ManualClock) -> None:
    """A send whose outcome is unknown is given out to be looked up, and to nobody else."""
    await store.enqueue(new_message())
    await store.settle(await claim_one(store), UNKNOWN, clock() + timedelta(seconds=5))
    assert await store.unknown(limit=10, lease=LEASE) == ()
    clock.forward(5)
    [looking] = await store.unknown(limit=10, lease=LEASE)
    assert looking.attempt == 1
    assert await store.unknown(limit=10, lease=LEASE) == ()
    clock.forward(3600)
    assert await store.claim(limit=10, lease=LEASE) == ()
    assert len(await store.unknown(limit=10, lease=LEASE)) == 1


async def test_abandoned_send_becomes_unknown(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """When a lease ends the outcome is unknown, and the message is not simply sent again."""
    message, _ = await store.enqueue(new_message())
    await claim_one(store)
    assert await store.expire_leases() == 0
    clock.forward(60)
    assert await store.expire_leases() == 1
    assert await store.expire_leases() == 0
    assert await unsettled(database) == [("unknown", 1)]
    assert await store.claim(limit=10, lease=LEASE) == ()
    assert await events(database, message.id) == ["queued", "attempt", "unknown"]


async def test_late_acceptance_counts(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """A process that was too slow and then reports acceptance is believed."""
    await store.enqueue(new_message())
    slow = await claim_one(store)
    clock.forward(60)
    await store.expire_leases()
    await store.settle(slow, accepted(), clock())
    assert await unsettled(database) == []
    assert [row.provider_message_id for row in await stored(database)] == [SID]


@pytest.mark.parametrize("outcome", [RETRY, REJECTED])
async def test_late_refusal_does_not_count(
    store: SqlOutboxStore, database: Database, clock: ManualClock, outcome: SendOutcome
) -> None:
    """A process that lost its lease can't release a message that someone else deals with."""
    await store.enqueue(new_message())
    slow = await claim_one(store)
    clock.forward(60)
    await store.expire_leases()
    await store.settle(slow, outcome, clock())
    assert await unsettled(database) == [("unknown", 1)]


async def test_late_unknown_takes_a_retry_back(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """When a slow process reports that it may have sent, a retry decided meanwhile is stopped."""
    await store.enqueue(new_message())
    slow = await claim_one(store)
    clock.forward(60)
    await store.expire_leases()
    [looking] = await store.unknown(limit=1, lease=LEASE)
    await store.settle(looking, RETRY, clock())
    await store.settle(slow, UNKNOWN, clock())
    assert await unsettled(database) == [("unknown", 1)]


async def test_second_look_may_not_release(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """Of two reconcilers the one whose lease has ended can't make a message due."""
    await store.enqueue(new_message())
    await store.settle(await claim_one(store), UNKNOWN, clock())
    [slow] = await store.unknown(limit=1, lease=LEASE)
    clock.forward(60)
    await store.unknown(limit=1, lease=LEASE)
    await store.settle(slow, RETRY, clock())
    assert await unsettled(database) == [("unknown", 1)]


@pytest.mark.parametrize("outcome", [RETRY, UNKNOWN, REJECTED])
async def test_what_a_provider_has_is_not_sent_again(
    store: SqlOutboxStore, database: Database, clock: ManualClock, outcome: SendOutcome
) -> None:
    """Whatever a look finds of a message that has its provider's id, it isn't sent once more, nor
    does it fail."""
    await store.enqueue(new_message("first"))
    await store.enqueue(new_message("second"))
    await store.settle(await claim_one(store), UNKNOWN, clock())
    async with database.write() as connection:
        first = MessageRow.body == "first"
        await connection.execute(update(MessageRow).where(first).values(provider_message_id=SID))
    [looked_up] = await store.unknown(limit=10, lease=LEASE)
    await store.settle(looked_up, outcome, clock())
    assert (await claim_one(store)).body == "second"
    assert [row.status for row in await stored(database)] == ["sending", "sending"]


async def test_conversation_keeps_its_order(store: SqlOutboxStore, clock: ManualClock) -> None:
    """Only the oldest unsettled message of a conversation is ever claimed."""
    for body in ("one", "two", "three"):
        await store.enqueue(new_message(body))
    await store.enqueue(new_message("elsewhere", to="+15550001111"))
    claimed = await store.claim(limit=10, lease=LEASE)
    assert [one.body for one in claimed] == ["one", "elsewhere"]
    assert await store.claim(limit=10, lease=LEASE) == ()
    await store.settle(claimed[0], RETRY, clock() + timedelta(seconds=1))
    assert await store.claim(limit=10, lease=LEASE) == ()
    clock.forward(1)
    again = await claim_one(store)
    assert again.body == "one"
    await store.settle(again, accepted(), clock())
    assert (await claim_one(store)).body == "two"


async def test_same_request_gives_the_same_message(
    store: SqlOutboxStore, database: Database
) -> None:
    """A repeated request gets the message of the first, also when many come at once."""
    message = new_message(request_id="key", request_hash="a")
    results = await asyncio.gather(*(store.enqueue(message) for _ in range(10)))
    assert len({stored_message.id for stored_message, _ in results}) == 1
    assert [new for _, new in results].count(True) == 1
    assert len(await stored(database)) == 1
    with pytest.raises(IdempotencyConflictError, match="request_id"):
        await store.enqueue(new_message("other", request_id="key", request_hash="b"))


async def test_new_contact_is_created_once(store: SqlOutboxStore, database: Database) -> None:
    """Messages to a new contact at one moment share one contact and one conversation."""
    await asyncio.gather(*(store.enqueue(new_message(str(number))) for number in range(10)))
    async with database.read() as connection:
        for table in (ContactRow, IdentityRow, ConversationRow):
            assert len((await connection.execute(select(table.id))).all()) == 1
    assert len(await stored(database)) == 10


async def test_opted_out_contact_is_refused(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """After an opt-out nothing is accepted, and what waited is failed instead of sent."""
    waiting, _ = await store.enqueue(new_message("waiting", request_id="key", request_hash="a"))
    async with database.write() as connection:
        await connection.execute(update(ContactRow).values(opted_out_at=clock()))
    with pytest.raises(PolicyRefusedError) as refused:
        await store.enqueue(new_message("too late"))
    assert refused.value.rule == "opted_out"
    assert await store.claim(limit=10, lease=LEASE) == ()
    assert await unsettled(database) == []
    [row] = await stored(database)
    assert (row.status, row.error_code) == ("failed", "opted_out")
    again, new = await store.enqueue(new_message("waiting", request_id="key", request_hash="a"))
    assert (again.id, new) == (waiting.id, False)


async def test_settling_what_a_callback_settled(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """When the provider's report removed the outbox row first, an outcome only adds an event."""
    message, _ = await store.enqueue(new_message())
    claimed = await claim_one(store)
    await store.settle(claimed, accepted(status=MessageStatus.DELIVERED), clock())
    await store.settle(claimed, UNKNOWN, clock())
    await store.settle(claimed, accepted(), clock())
    [row] = await stored(database)
    assert (row.provider_message_id, row.status) == (SID, "delivered")
    assert await unsettled(database) == []
    assert await events(database, message.id) == ["queued", "attempt", "accepted", "unknown"]


async def test_claims_of_two_processes_never_meet(
    store: SqlOutboxStore, database: Database
) -> None:
    """Any number of claims at one moment give each message to one of them."""
    for number in range(60):
        await store.enqueue(new_message(to=f"+1555000{number:04}"))
    claims = await asyncio.gather(*(store.claim(limit=10, lease=LEASE) for _ in range(8)))
    claimed = [one.message_id for claim in claims for one in claim]
    assert len(claimed) == len(set(claimed))
    while rest := await store.claim(limit=10, lease=LEASE):
        claimed += [one.message_id for one in rest]
    assert len(set(claimed)) == 60
    assert len(claimed) == 60


async def test_numbers_become_visible_in_their_order(
    store: SqlOutboxStore, database: Database, clock: ManualClock
) -> None:
    """Of two messages stored at one moment the older is committed first, so it is sent first."""
    await store.enqueue(new_message("before"))
    await store.settle(await claim_one(store), accepted(), clock())
    [before] = await stored(database)
    async with database.write() as connection:
        asking = select_conversations(lock=True).where(ConversationRow.id == before.conversation_id)
        [conversation] = await connection.execute(asking)
        older = Queueing(new_message("older"), conversation)
        await insert_queued(connection, [older], policy=ANY_TIME, now=clock())
        younger = asyncio.create_task(store.enqueue(new_message("younger")))
        await asyncio.wait([younger], timeout=0.3)
        assert not younger.done()
    await younger
    assert (await claim_one(store)).body == "older"
