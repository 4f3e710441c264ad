"""A clock that is wrong, or jumps, doubles no message and holds none up."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pytest

from sandbox.faults import Fault, Faults, Latency
from sandbox.server import RunningSandbox
from services.messaging.domain.message import Template
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import ALL_OPEN, ClaimedSend, Routes
from services.messaging.store.acts import SqlActLog
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.schedule import SqlSchedule
from services.messaging.usecases.clock_watch import ClockWatch
from services.messaging.usecases.pace import RecipientPace
from services.messaging.usecases.policy import SendPolicy
from tests.support.sending import (
    ANY_TIME,
    new_message,
    now,
    running,
    sender,
    stored,
    twilio,
    unsettled,
    until,
    until_settled,
)

HOUR = timedelta(hours=1)
PACED = SendPolicy(window=None, pace=RecipientPace(interval=timedelta(seconds=0.1), burst=1))


class WrongClock:
    """The real time, and by how much it is wrong."""

    def __init__(self, wrong: timedelta = timedelta()) -> None:
        self.wrong = wrong

    def __call__(self) -> datetime:
        return now() + self.wrong


class LookedAt(SqlSchedule):
    """A schedule that tells when it was first looked at."""

    def __init__(self, database: Database, clock: WrongClock) -> None:
        super().__init__(database, clock)
        self.looked_at = asyncio.Event()

    async def latest_ahead(self) -> datetime | None:
        latest = await super().latest_ahead()
        self.looked_at.set()
        return latest


class Interrupted(SqlOutboxStore):
    """An outbox of a process to which something happens between its first claim and the call."""

    def __init__(
        self, database: Database, clock: Clock, meanwhile: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(database, clock, ANY_TIME)
        self.meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def claim(
        self, *, limit: int, lease: timedelta, routes: Routes = ALL_OPEN
    ) -> Sequence[ClaimedSend]:
        claimed = await super().claim(limit=limit, lease=lease, routes=routes)
        if claimed and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return claimed


def clock_watch(
    database: Database, clock: WrongClock, schedule: SqlSchedule | None = None
) -> ClockWatch:
    return ClockWatch(
        schedule or SqlSchedule(database, clock),
        clock=clock,
        longest_lease=timedelta(seconds=1),
        poll_seconds=0.05,
        look_seconds=0.1,
    )


async def test_a_jump_forward_during_a_call(database: Database, sandbox: RunningSandbox) -> None:
    """What Twilio is still working on isn't taken for lost because an hour seems to have passed."""
    clock = WrongClock()
    store = SqlOutboxStore(database, clock, ANY_TIME)
    await store.enqueue(new_message())
    sandbox.set_faults(Faults(latency=Latency(seconds=1, times=1)))

    async def under_way() -> bool:
        return bool(sandbox.state.requests)

    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider, grace=3, clock=clock)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until(under_way)
            clock.wrong = HOUR
            await until_settled(database)
    assert len(sandbox.state.messages) == 1


@pytest.mark.parametrize("others", [True, False], ids=["others took over", "alone"])
async def test_an_hour_between_claim_and_call(
    database: Database, sandbox: RunningSandbox, others: bool
) -> None:
    """A machine that was suspended sends nothing that another has sent meanwhile, though its own
    seconds stood still; what nobody took it sends, also when only its clock was set ahead."""
    clock = WrongClock()
    await SqlOutboxStore(database, clock, ANY_TIME).enqueue(new_message())
    resumed = asyncio.Event()

    async with twilio(sandbox.base_url) as provider:

        async def hour() -> None:
            clock.wrong = HOUR
            if others:
                store = SqlOutboxStore(database, clock, ANY_TIME)
                other = sender(store, provider, grace=0.1, clock=clock)
                async with running(other.dispatcher.run(), other.reconciler.run()):
                    await until_settled(database)
            resumed.set()

        process = sender(Interrupted(database, clock, hour), provider, clock=clock)
        async with running(process.dispatcher.run()):
            await resumed.wait()
            await until_settled(database)
    assert len(sandbox.state.messages) == 1


@pytest.mark.parametrize("after", [HOUR, timedelta()], ids=["wrong all the time", "set back"])
@pytest.mark.parametrize("template", [None, Template(f"HX{0:032x}")], ids=["text", "template"])
async def test_ahead_when_the_answer_is_lost(
    database: Database, sandbox: RunningSandbox, template: Template | None, after: timedelta
) -> None:
    """A message is found in Twilio's list though it seems to be older than our attempt."""
    clock = WrongClock(HOUR)
    store = SqlOutboxStore(database, clock, ANY_TIME)
    await store.enqueue(new_message("" if template else "Hello", template=template))
    sandbox.set_faults(Faults(reset_after_accept=Fault(times=1)))

    async def unknown() -> bool:
        return await unsettled(database) == [("unknown", 1)]

    async with twilio(sandbox.base_url, clock=clock) as provider:
        process = sender(store, provider, clock=clock)
        async with running(process.dispatcher.run()):
            await until(unknown)
        async with running(clock_watch(database, clock).run()):
            await asyncio.sleep(0)
            clock.wrong = after
            process = sender(store, provider, clock=clock)
            async with running(process.dispatcher.run(), process.reconciler.run()):
                await until_settled(database)
    assert [row.provider_message_id for row in await stored(database)] == list(
        sandbox.state.messages
    )


async def test_a_clock_that_is_set_back(database: Database, sandbox: RunningSandbox) -> None:
    """What was queued, claimed or tried while it was ahead doesn't wait until that time comes."""
    clock = WrongClock(HOUR)
    store = SqlOutboxStore(database, clock, PACED)
    for number in range(3):
        await store.enqueue(new_message(f"text {number}"))
    # By a process that is killed then.
    await store.claim(limit=1, lease=timedelta(seconds=1))
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider, clock=clock)
        async with running(clock_watch(database, clock).run()):
            await asyncio.sleep(0)
            clock.wrong = timedelta()
            async with running(process.dispatcher.run(), process.reconciler.run()):
                await store.enqueue(new_message("after it"))
                await until_settled(database)
    assert sorted(one.body for one in sandbox.state.messages.values()) == sorted(
        ["text 0", "text 1", "text 2", "after it"]
    )


async def test_acts_after_a_clock_was_set_back(database: Database) -> None:
    """Another process brings them to the journal at once when the one that did so is gone."""
    clock = WrongClock(HOUR)
    await SqlOutboxStore(database, clock, ANY_TIME).enqueue(new_message())
    assert await SqlActLog(database, clock).unjournaled(limit=10, lease_seconds=10)
    clock.wrong = timedelta()
    other = SqlActLog(database, clock)
    assert not await other.unjournaled(limit=10, lease_seconds=10)
    await SqlSchedule(database, clock).bring_forward(longest_lease=timedelta(minutes=2))
    assert await other.unjournaled(limit=10, lease_seconds=10)


async def test_a_process_that_starts_after_it(database: Database, sandbox: RunningSandbox) -> None:
    """A process that was not there when the clock was set back finds what was left waiting."""
    clock = WrongClock(HOUR)
    store = SqlOutboxStore(database, clock, ANY_TIME)
    await store.enqueue(new_message())
    clock.wrong = timedelta()
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider)
        async with running(clock_watch(database, clock).run(), process.dispatcher.run()):
            await until_settled(database)


async def test_what_a_process_left_whose_clock_alone_was_ahead(
    database: Database, sandbox: RunningSandbox
) -> None:
    """Others find it though it is killed before its clock is right, and never started again."""
    ahead = SqlOutboxStore(database, WrongClock(HOUR), ANY_TIME)
    clock = WrongClock()
    schedule = LookedAt(database, clock)
    async with twilio(sandbox.base_url) as provider:
        process = sender(SqlOutboxStore(database, clock, ANY_TIME), provider, clock=clock)
        watch = clock_watch(database, clock, schedule)
        async with running(watch.run(), process.dispatcher.run()):
            await schedule.looked_at.wait()
            await ahead.enqueue(new_message())
            await until_settled(database)
