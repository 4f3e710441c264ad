"""The gate before the outbox, on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from services.common.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PaceExceededError,
    PolicyRefusedError,
)
from services.messaging.domain.message import Author, Template
from services.messaging.ports.sending import NewMessage, OutcomeKind, SendOutcome
from services.messaging.store.contact_models import ContactRow, ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.work_models import PendingReplyRow
from services.messaging.usecases.pace import RecipientPace
from services.messaging.usecases.policy import SendPolicy
from tests.support.receiving import START, inbound, phone, receive, rows
from tests.support.sending import (
    ANY_TIME,
    ManualClock,
    events,
    new_message,
    stored,
    unsettled,
)

LEASE = timedelta(seconds=60)
ACCEPTED = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="SM" + "1" * 32)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SqlOutboxStore:
    return SqlOutboxStore(database, clock)


async def write(database: Database, clock: ManualClock, body: str = "Hello") -> None:
    """The contact writes."""
    seconds = (clock() - START).total_seconds()
    await receive(SqlIngestStore(database), clock=clock)(
        [inbound(f"SM-{seconds}", seconds=seconds, body=body)], []
    )


def text(body: str = "Hello", **values: Any) -> NewMessage:
    return new_message(body, **{"to": phone(0), **values})


def template() -> NewMessage:
    return new_message("", to=phone(0), template=Template("HX1", {"1": "Dana"}))


async def test_outside_the_window_only_templates(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """A text goes for 24 hours after the contact's message, a template always; a refusal leaves
    no trace."""
    with pytest.raises(PolicyRefusedError) as refused:
        await store.enqueue(text())
    assert refused.value.rule == "window"
    assert await rows(database, "contacts") == []
    await store.enqueue(template())
    await write(database, clock)
    clock.forward(24 * 3600 - 1)
    await store.enqueue(text())
    clock.forward(1)
    with pytest.raises(PolicyRefusedError):
        await store.enqueue(text())
    await store.enqueue(template())
    await write(database, clock)
    await store.enqueue(text())


async def test_refusals_among_others(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """Of requests that come at one moment each gets its own answer, and the refused ones leave no
    trace: strangers, repeated and conflicting keys, replies to nothing, and good ones."""
    await write(database, clock)
    wanted = [
        text("one"),
        new_message("stranger", to="+15550001111"),
        text("two", request_id="key", request_hash="a"),
        text("two", request_id="key", request_hash="a"),
        text("three", request_id="key", request_hash="b"),
        new_message("", to="+15550002222", template=Template("HX1")),
        new_message("", to="+15550003333", template=Template("HX1"), reply_to_message_id="x"),
        text("four", reply_to_message_id="nobody's"),
        text("five", author=Author.PERSON),
    ]
    results = await asyncio.gather(*map(store.enqueue, wanted), return_exceptions=True)
    errors = {
        wanted[index].body or index: type(result)
        for index, result in enumerate(results)
        if isinstance(result, BaseException)
    }
    assert errors == {
        "stranger": PolicyRefusedError,
        "three": IdempotencyConflictError,
        6: InvalidInputError,
        "four": InvalidInputError,
    }
    sent = [row.body for row in await stored(database) if row.direction == "outbound"]
    assert sorted(sent) == ["", "five", "one", "two"]
    assert len(await rows(database, "contacts")) == 2
    assert sorted(await unsettled(database)) == [("due", 0)] * 2 + [("waiting", 0)] * 2


async def test_what_waits_too_long_is_not_sent(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """A text that waits until the window has closed fails with that reason, before the provider
    would refuse it; a template behind it still goes."""
    await write(database, clock)
    clock.forward(20 * 3600)
    message, _ = await store.enqueue(text())
    await store.enqueue(template())
    clock.forward(4 * 3600)
    assert await store.claim(limit=10, lease=LEASE) == ()
    _, failed, _ = await stored(database)
    assert (failed.status, failed.error_code) == ("failed", "window")
    assert await events(database, message.id) == ["queued", "rejected"]
    [claimed] = await store.claim(limit=10, lease=LEASE)
    assert claimed.template == Template("HX1", {"1": "Dana"})


@pytest.mark.parametrize("ended", [None, OutcomeKind.RETRY, OutcomeKind.UNKNOWN])
async def test_what_is_too_old_is_not_sent(
    ended: OutcomeKind | None, database: Database, clock: ManualClock
) -> None:
    """A message's age counts from its being stored, whether it was tried before or not."""
    store = SqlOutboxStore(database, clock, replace(ANY_TIME, max_age=timedelta(hours=2)))
    message, _ = await store.enqueue(text())
    if ended is not None:
        [claimed] = await store.claim(limit=1, lease=LEASE)
        await store.settle(claimed, SendOutcome(ended, error_code="busy"), clock())
    if ended is OutcomeKind.UNKNOWN:
        [claimed] = await store.unknown(limit=1, lease=LEASE)
        await store.settle(claimed, SendOutcome(OutcomeKind.RETRY), clock())
    clock.forward(2 * 3600)
    await store.enqueue(text("younger", to=phone(1)))
    clock.forward(1)
    assert [one.body for one in await store.claim(limit=10, lease=LEASE)] == ["younger"]
    [failed] = [row for row in await stored(database) if row.public_id == message.id]
    assert (failed.status, failed.error_code) == ("failed", "expired")
    expected = "not sent again" if ended is OutcomeKind.UNKNOWN else "not sent"
    assert failed.error_message.startswith(f"{expected}: it was older than SEND_MAX_AGE_SECONDS")


async def test_a_person_takes_over(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """A person's message silences the assistant in that conversation, in the same transaction."""
    await write(database, clock)
    assert len(await rows(database, "pending_replies")) == 1
    message, _ = await store.enqueue(text(author=Author.PERSON))
    assert message.author is Author.PERSON
    assert await rows(database, "pending_replies") == []
    [conversation] = await rows(database, "conversations")
    assert conversation["assistant_paused_by"] == "person"
    assert conversation["assistant_paused_at"] == clock()


async def test_a_refused_person_changes_nothing(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """A person's message that is refused leaves the assistant its turn."""
    await write(database, clock)
    with pytest.raises(InvalidInputError):
        await store.enqueue(text(author=Author.PERSON, reply_to_message_id="nobody's"))
    assert len(await rows(database, "pending_replies")) == 1


async def test_the_assistant_stays_silent_while_paused(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """Nothing of the assistant is stored while a person has the conversation."""
    await write(database, clock)
    await store.enqueue(text(author=Author.PERSON))
    with pytest.raises(PolicyRefusedError) as refused:
        await store.enqueue(text(author=Author.ASSISTANT))
    assert refused.value.rule == "paused"


async def test_a_burst_is_spread(database: Database, clock: ManualClock) -> None:
    """Messages to one contact beyond the burst go an interval apart, in their order."""
    policy = SendPolicy(window=None, pace=RecipientPace(timedelta(seconds=6), burst=2))
    store = SqlOutboxStore(database, clock, policy)
    for number in range(4):
        await store.enqueue(text(str(number)))
    sent: list[tuple[str, float]] = []
    while len(sent) < 4:
        for message in await store.claim(limit=10, lease=LEASE):
            sent.append((message.body, (clock() - START).total_seconds()))
            outcome = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id=f"SM{message.body}")
            await store.settle(message, outcome, clock())
        else:
            clock.forward(1)
    assert [body for body, _ in sent] == ["0", "1", "2", "3"]
    assert [seconds for _, seconds in sent][2:] == [6, 12]


async def test_too_many_for_one_contact(database: Database, clock: ManualClock) -> None:
    """When too many wait for one contact more are refused until some have gone; others go."""
    store = SqlOutboxStore(database, clock, SendPolicy(window=None, max_waiting=3))
    for _ in range(3):
        await store.enqueue(text())
    with pytest.raises(PaceExceededError) as refused:
        await store.enqueue(text())
    assert refused.value.rule == "pace"
    assert refused.value.until is not None
    await store.enqueue(new_message(to="+15550001111"))
    [first, _] = await store.claim(limit=10, lease=LEASE)
    await store.settle(first, ACCEPTED, clock())
    await store.enqueue(text())


async def test_messages_behind_others_are_released_one_by_one(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """What waits behind a message of its conversation is claimable only once that is settled,
    also when messages are stored and settled at one moment."""
    store = SqlOutboxStore(database, clock, ANY_TIME)
    total = 40

    async def fill() -> None:
        for number in range(total):
            await store.enqueue(text(str(number)))

    async def empty() -> list[str]:
        sent: list[str] = []
        while len(sent) < total:
            for message in await store.claim(limit=10, lease=LEASE):
                sent.append(message.body)
                outcome = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id=f"SM{len(sent)}")
                await store.settle(message, outcome, clock())
        return sent

    async with asyncio.timeout(60):
        _, sent = await asyncio.gather(fill(), empty())
    assert sent == [str(number) for number in range(total)]
    assert await unsettled(database) == []


async def test_what_is_stranded_is_found(database: Database, clock: ManualClock) -> None:
    """A message that waits behind nothing, whatever brought that about, becomes due again."""
    store = SqlOutboxStore(database, clock, ANY_TIME)
    await store.enqueue(text("one"))
    await store.enqueue(text("two"))
    assert await store.release_stranded() == 0
    async with database.write() as connection:
        await connection.exec_driver_sql("DELETE FROM outbox WHERE state = 'due'")
    assert await store.claim(limit=10, lease=LEASE) == ()
    assert await store.release_stranded() == 1
    assert [one.body for one in await store.claim(limit=10, lease=LEASE)] == ["two"]


async def test_a_long_queue_is_not_scanned(database: Database, clock: ManualClock) -> None:
    """Thousands of messages behind one contact's oldest are not looked at by a claim."""
    store = SqlOutboxStore(database, clock, ANY_TIME)
    await store.enqueue(text("first"))
    await store.enqueue(new_message("elsewhere", to="+15550001111"))
    async with database.write() as connection:
        # Many more, as the store would write them.
        numbers = (
            "WITH RECURSIVE numbers(n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000) "
        )
        await connection.exec_driver_sql(
            f"{numbers}INSERT INTO messages (id, public_id, conversation_id, direction, author,"
            " contact_address, own_address, body, media, provider, status, created_at)"
            " SELECT 1000 + n, 'm' || n, conversation_id, direction, author,"
            " contact_address, own_address, body, media, provider, status, created_at"
            " FROM messages, numbers WHERE body = 'first'"
        )
        await connection.exec_driver_sql(
            f"{numbers}INSERT INTO outbox (message_id, conversation_id, state, attempts, due_at)"
            " SELECT 1000 + n, conversation_id, 'waiting', 0, due_at FROM outbox, numbers"
            " WHERE message_id = (SELECT min(message_id) FROM outbox)"
        )
        if database.dialect == "postgresql":
            # As its autovacuum would; SQLite is never asked to.
            await connection.exec_driver_sql("ANALYZE")
    plan = await claim_plan(database, store)
    assert "ix_outbox_state_due_at" in plan
    assert "SCAN outbox" not in plan
    assert "Seq Scan on outbox" not in plan
    assert [one.body for one in await store.claim(limit=10, lease=LEASE)] == ["elsewhere"]


async def claim_plan(database: Database, store: SqlOutboxStore) -> str:
    """The plan by which the database finds what is due."""
    engine = database._engine.sync_engine
    statements: list[tuple[str, Any]] = []

    def note(_1: Any, _2: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert await store.claim(limit=1, lease=LEASE)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    [(statement, parameters)] = [one for one in statements if "FROM outbox" in one[0]]
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    async with database.read() as connection:
        plan = await connection.exec_driver_sql(explain + statement, parameters)
        return "\n".join(" ".join(map(str, row)) for row in plan)


async def test_an_opt_out_fails_what_waits(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """After an opt-out even a template is refused, and the assistant's waiting messages fail."""
    await write(database, clock)
    for number in range(3):
        await store.enqueue(text(str(number), author=Author.ASSISTANT))
    clock.forward(1)
    await write(database, clock, "STOP")
    with pytest.raises(PolicyRefusedError) as refused:
        await store.enqueue(template())
    assert refused.value.rule == "opted_out"
    assert await unsettled(database) == []
    async with database.read() as connection:
        assert (await connection.execute(select(PendingReplyRow))).first() is None


async def test_the_window_of_another_number_does_not_count(
    database: Database, store: SqlOutboxStore, clock: ManualClock
) -> None:
    """The window belongs to the conversation with the number that the contact wrote to."""
    await write(database, clock)
    async with database.write() as connection:
        await connection.execute(update(ConversationRow).values(own_address="whatsapp:+15559"))
        assert await connection.scalar(select(ContactRow.id)) is not None
    with pytest.raises(PolicyRefusedError):
        await store.enqueue(text())
