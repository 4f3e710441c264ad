"""A second provider takes over what the first certainly didn't send, and nothing else."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select

from sandbox.faults import ApiFault, Fault, Faults, Hang, RateLimited
from sandbox.server import RunningSandbox
from services.messaging.ports.sending import Routes
from services.messaging.providers.twilio.client import TwilioProvider
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.ports import free_port
from tests.support.sending import (
    ANY_TIME,
    Sender,
    events,
    new_message,
    now,
    open_sandbox,
    patience,
    running,
    sender,
    stored,
    twilio,
    unsettled,
    until,
    until_settled,
)


@pytest.fixture
def store(database: Database) -> SqlOutboxStore:
    return SqlOutboxStore(database, now, ANY_TIME)


@pytest.fixture
async def first() -> AsyncIterator[RunningSandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def second() -> AsyncIterator[RunningSandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def working(
    store: SqlOutboxStore, *providers: TwilioProvider, breaker_pause: float = 0.3
) -> AsyncIterator[Sender]:
    process = sender(store, *providers, breaker_failures=3, breaker_pause=breaker_pause)
    async with running(process.dispatcher.run(), process.reconciler.run()):
        yield process


async def trail(database: Database, message_id: str) -> list[tuple[str, str]]:
    """What happened to a message and at which provider."""
    async with database.read() as connection:
        rows = await connection.execute(
            select(MessageEventRow.kind, MessageEventRow.payload, MessageEventRow.provider)
            .join(MessageRow, MessageRow.id == MessageEventRow.message_id)
            .where(MessageRow.public_id == message_id)
            .order_by(MessageEventRow.id)
        )
        return [(row.payload.get("outcome", row.kind), row.provider) for row in rows]


async def test_nobody_at_the_first(
    database: Database, store: SqlOutboxStore, second: RunningSandbox
) -> None:
    """When the first can't be reached the second sends at once, in the same conversation, and the
    message tells of both attempts."""
    port = free_port()
    messages = [(await store.enqueue(new_message(str(number))))[0] for number in range(5)]
    async with (
        twilio(f"http://127.0.0.1:{port}") as primary,
        twilio(second.base_url, name="other") as other,
        # Longer than the test: the first must not be tried again meanwhile.
        working(store, primary, other, breaker_pause=60),
    ):
        await until_settled(database)
    rows = await stored(database)
    assert {row.provider for row in rows} == {"other"}
    assert len({row.conversation_id for row in rows}) == 1
    assert [one.body for one in second.state.messages.values()] == [str(n) for n in range(5)]
    assert await trail(database, messages[0].id) == [
        ("queued", "twilio"),
        ("attempt", "twilio"),
        ("retry", "twilio"),
        ("attempt", "other"),
        ("accepted", "other"),
    ]
    # By now the breaker is open: no attempt is burnt at the first.
    assert await trail(database, messages[4].id) == [
        ("queued", "twilio"),
        ("attempt", "other"),
        ("accepted", "other"),
    ]


async def test_the_first_is_tried_again(
    database: Database, store: SqlOutboxStore, first: RunningSandbox, second: RunningSandbox
) -> None:
    """Once the first has recovered a trial message finds out, and the next ones go there."""
    first.set_faults(Faults(rate_limited=RateLimited(retry_after=0, times=3)))
    async with (
        twilio(first.base_url) as primary,
        twilio(second.base_url, name="other") as other,
        working(store, primary, other) as process,
    ):
        number = 0

        async def one_more_went_to_the_first() -> bool:
            nonlocal number
            number += 1
            await store.enqueue(new_message(f"text {number}"))
            process.dispatcher.wake()
            return len(first.state.messages) >= 3

        await until(one_more_went_to_the_first)
        await until_settled(database)
    sent = Counter(one.body for box in (first, second) for one in box.state.messages.values())
    assert sent == Counter(row.body for row in await stored(database))
    assert second.state.messages


@pytest.mark.parametrize(
    "faults",
    [
        Faults(error_500_after_accept=Fault(times=2)),
        Faults(reset_after_accept=Fault(times=2)),
        Faults(hang=Hang(times=2, accept=True)),
        Faults(error_500=ApiFault(times=2)),
        Faults(rate_limited=RateLimited(retry_after=1, times=2)),
        Faults(rate_limited=RateLimited(retry_after=0, times=4), error_500=ApiFault(times=2)),
    ],
    ids=lambda faults: ",".join(faults.model_dump(exclude_none=True)),
)
async def test_once_in_all(
    database: Database,
    store: SqlOutboxStore,
    first: RunningSandbox,
    second: RunningSandbox,
    faults: Faults,
) -> None:
    """Whatever the first does wrong, the lists of both hold each message once between them."""
    for number in range(3):
        await store.enqueue(new_message("the same text"))
        await store.enqueue(new_message(f"text {number}", to="+15550001111"))
    first.set_faults(faults)
    async with (
        twilio(first.base_url, seconds=patience(faults)) as primary,
        twilio(second.base_url, name="other") as other,
        working(store, primary, other),
    ):
        await until_settled(database)
    theirs = {
        (name, sid): one.body
        for name, box in (("twilio", first), ("other", second))
        for sid, one in box.state.messages.items()
    }
    ours = {(row.provider, row.provider_message_id): row.body for row in await stored(database)}
    assert theirs == ours


async def test_unknown_never_moves(
    database: Database, store: SqlOutboxStore, first: RunningSandbox, second: RunningSandbox
) -> None:
    """A message that the first may have stays there, even when the first is left alone and a
    look finds nothing."""
    first.set_faults(Faults(error_500=ApiFault(times=1)))
    message, _ = await store.enqueue(new_message())
    async with twilio(first.base_url) as primary:
        process = sender(store, primary, breaker_failures=1)
        async with running(process.dispatcher.run()):
            await until(lambda: is_unknown(database))
    first.set_faults(Faults(rate_limited=RateLimited(retry_after=0, times=3)))
    async with (
        twilio(first.base_url) as primary,
        twilio(second.base_url, name="other") as other,
        working(store, primary, other),
    ):
        await until_settled(database)
    assert not second.state.messages
    assert len(first.state.messages) == 1
    assert "retry" in await events(database, message.id)


async def is_unknown(database: Database) -> bool:
    return [state for state, _ in await unsettled(database)] == ["unknown"]


async def test_nothing_is_claimed_while_closed(database: Database, store: SqlOutboxStore) -> None:
    """While its provider is closed and nobody takes over, a message waits without an attempt."""
    lease = timedelta(seconds=60)
    await store.enqueue(new_message())
    closed = Routes(closed=frozenset({"twilio"}))
    assert await store.claim(limit=10, lease=lease, routes=closed) == ()
    assert await unsettled(database) == [("due", 0)]
    moved = Routes(closed=frozenset({"twilio"}), instead={"twilio": "other"})
    [claimed] = await store.claim(limit=10, lease=lease, routes=moved)
    assert (claimed.provider, claimed.attempt) == ("other", 1)


async def test_no_attempt_is_burnt_while_the_only_provider_is_down(
    database: Database, store: SqlOutboxStore
) -> None:
    """With nobody to take over messages wait, and few attempts are made, whatever their number."""
    port = free_port()
    for number in range(30):
        await store.enqueue(new_message(to=f"+15550000{number:03}"))
    async with twilio(f"http://127.0.0.1:{port}") as primary:
        process = sender(store, primary, breaker_failures=3, concurrency=3)
        async with running(process.dispatcher.run()):
            await until(lambda: some_attempts(database, 3))
        async with open_sandbox(port=port) as sandbox:
            process = sender(store, primary)
            async with running(process.dispatcher.run(), process.reconciler.run()):
                await until_settled(database)
            assert len(sandbox.state.messages) == 30
    attempts = [await events(database, row.public_id) for row in await stored(database)]
    assert sum(one.count("retry") for one in attempts) < 30


async def some_attempts(database: Database, count: int) -> bool:
    return sum(attempts for _, attempts in await unsettled(database)) >= count
