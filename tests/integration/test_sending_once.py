"""Every message reaches Twilio exactly once, whatever fails. Twilio's own list is the judge."""

import asyncio
import contextlib
import sys
from collections import Counter
from datetime import datetime, timedelta

import pytest

from sandbox.faults import (
    ApiFault,
    EarlyCallbacks,
    Fault,
    Faults,
    Hang,
    Latency,
    RateLimited,
    Reject,
)
from sandbox.server import RunningSandbox
from services.common.errors import UnavailableError
from services.messaging.ports.sending import (
    ALL_OPEN,
    ClaimedSend,
    OutcomeKind,
    Provider,
    Routes,
    SendOutcome,
)
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.dispatch import Dispatcher
from services.messaging.usecases.retrying import RetryPolicy
from tests.support.ports import free_port
from tests.support.sandbox import running_receiver
from tests.support.sending import (
    ANY_TIME,
    end_leases,
    events,
    ingesting,
    new_message,
    now,
    open_database,
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


async def assert_sent_once(database: Database, sandbox: RunningSandbox) -> None:
    """Twilio has each message of ours once, under the id that we noted, in order by contact."""
    ours = [
        (row.contact_address, row.provider_message_id, row.body) for row in await stored(database)
    ]
    theirs = [(one.recipient, one.sid, one.body) for one in sandbox.state.messages.values()]
    assert sorted(theirs) == sorted(ours)
    # Stable: within a contact the order stays.
    assert sorted(theirs, key=lambda one: one[0]) == sorted(ours, key=lambda one: one[0])


async def accepted(sandbox: RunningSandbox) -> bool:
    return bool(sandbox.state.messages)


async def asked(sandbox: RunningSandbox, times: int) -> bool:
    return sum(request.method == "GET" for request in sandbox.state.requests) >= times


async def happened(database: Database, message_id: str, event: str) -> bool:
    return event in await events(database, message_id)


async def has_status(database: Database, status: str) -> bool:
    return [row.status for row in await stored(database)] == [status]


async def sending(database: Database, count: int) -> bool:
    return [state for state, _ in await unsettled(database)].count("sending") == count


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(rate_limited=RateLimited(retry_after=0, times=3)),
        Faults(error_500=ApiFault(times=1)),
        Faults(error_500=ApiFault(times=2, on="any")),
        Faults(error_500_after_accept=Fault(times=2)),
        Faults(reset_after_accept=Fault(times=2)),
        Faults(hang=Hang(times=1)),
        Faults(hang=Hang(times=2, accept=True)),
        Faults(latency=Latency(seconds=2.2, times=2)),
        Faults(reject=Reject(error_code=63018, times=2)),
    ],
    ids=lambda faults: ",".join(faults.model_dump(exclude_none=True)) or "no fault",
)
async def test_faults(
    database: Database, store: SqlOutboxStore, sandbox: RunningSandbox, faults: Faults
) -> None:
    """Whatever Twilio does wrong, each message is sent once, also among equal texts."""
    for number in range(3):
        await store.enqueue(new_message("the same text"))
        await store.enqueue(new_message(f"text {number}", to="+15550001111"))
    sandbox.set_faults(faults)
    # Twilio's list is believed long after the latest answer: for what it accepts after that, the
    # product gives no promise.
    grace = 4 if faults.latency else 1
    async with twilio(sandbox.base_url, seconds=patience(faults)) as provider:
        process = sender(store, provider, grace=grace)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
    await assert_sent_once(database, sandbox)


@pytest.mark.parametrize(
    "faults",
    [Faults(error_500=ApiFault(times=1)), Faults(error_500_after_accept=Fault(times=1))],
    ids=["lost", "accepted"],
)
async def test_equal_texts_are_told_apart(
    database: Database, store: SqlOutboxStore, sandbox: RunningSandbox, faults: Faults
) -> None:
    """A message that is looked up is not taken for an earlier one with the same text."""
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await store.enqueue(new_message("the same text"))
            await until_settled(database)
            sandbox.set_faults(faults)
            await store.enqueue(new_message("the same text"))
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def test_twilio_unreachable(database: Database, store: SqlOutboxStore) -> None:
    """Messages wait while no connection can be made, and are sent once it can."""
    port = free_port()
    message, _ = await store.enqueue(new_message())
    async with twilio(f"http://127.0.0.1:{port}") as provider:
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until(lambda: happened(database, message.id, "retry"))
            async with open_sandbox(port=port) as sandbox:
                await until_settled(database)
                await assert_sent_once(database, sandbox)
    assert "unknown" not in await events(database, message.id)


async def test_unknown_stays_unsent_while_twilio_lists_nothing(
    database: Database, store: SqlOutboxStore, sandbox: RunningSandbox
) -> None:
    """While Twilio can't say what it has, an unknown message is not sent again."""
    await store.enqueue(new_message())
    sandbox.set_faults(Faults(error_500_after_accept=Fault(times=1), error_500=ApiFault(on="read")))
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider, grace=0.1)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until(lambda: asked(sandbox, 4))
            assert await unsettled(database) == [("unknown", 1)]
            sandbox.set_faults(Faults())
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def test_callback_before_the_answer(database: Database, store: SqlOutboxStore) -> None:
    """A status that comes before the create call returns is kept, and moves the message on."""
    async with (
        running_receiver() as receiver,
        ingesting(receiver, database),
        open_sandbox(webhook_url=receiver.base_url) as sandbox,
        twilio(sandbox.base_url, public_host=receiver.base_url) as provider,
    ):
        sandbox.set_faults(Faults(early_callbacks=EarlyCallbacks(statuses=["sent", "delivered"])))
        process = sender(store, provider, on_accepted=SqlIngestStore(database).apply_parked)
        await store.enqueue(new_message())
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
            await until(lambda: has_status(database, "read"))
        await assert_sent_once(database, sandbox)
        [row] = await stored(database)
        assert None not in (row.sent_at, row.delivered_at, row.read_at)


async def test_callback_settles_what_never_answered(
    database: Database, store: SqlOutboxStore
) -> None:
    """A callback that names our id settles a send that got no answer, without asking Twilio."""
    async with (
        running_receiver() as receiver,
        ingesting(receiver, database),
        open_sandbox(webhook_url=receiver.base_url) as sandbox,
        twilio(sandbox.base_url, seconds=2, public_host=receiver.base_url) as provider,
    ):
        sandbox.set_faults(
            Faults(hang=Hang(accept=True), early_callbacks=EarlyCallbacks(statuses=["sent"]))
        )
        await store.enqueue(new_message())
        async with running(sender(store, provider).dispatcher.run()):
            await until_settled(database)
        assert all(request.method == "POST" for request in sandbox.state.requests)
        await assert_sent_once(database, sandbox)


@pytest.mark.parametrize("point", ["claimed", "answered", "settled"])
async def test_killed(
    database_url: str,
    database: Database,
    store: SqlOutboxStore,
    sandbox: RunningSandbox,
    point: str,
) -> None:
    """A process killed between any two steps leaves nothing unsent and nothing to be sent twice."""
    for _ in range(2):
        await store.enqueue(new_message("the same text"))
    assert await dead_process(database_url, sandbox.base_url, point) == -9
    assert len(sandbox.state.messages) == (0 if point == "claimed" else 1)
    await end_leases(database)
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def test_killed_during_the_call(
    database_url: str, database: Database, store: SqlOutboxStore, sandbox: RunningSandbox
) -> None:
    """A process killed while Twilio works on its request is found out about, not repeated."""
    await store.enqueue(new_message())
    sandbox.set_faults(Faults(hang=Hang(accept=True, times=1)))
    process = await start_process(database_url, sandbox.base_url, "never")
    await until(lambda: accepted(sandbox))
    process.kill()
    await process.wait()
    await end_leases(database)
    async with twilio(sandbox.base_url) as provider:
        successor = sender(store, provider)
        async with running(successor.dispatcher.run(), successor.reconciler.run()):
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def start_process(url: str, base_url: str, point: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.sending_process", url, base_url, point
    )


async def dead_process(url: str, base_url: str, point: str) -> int:
    process = await start_process(url, base_url, point)
    async with asyncio.timeout(90):
        return await process.wait()


async def test_shutdown_finishes_what_is_under_way(
    database: Database, store: SqlOutboxStore, sandbox: RunningSandbox
) -> None:
    """When stopped, the dispatcher waits for its calls and records them, and begins no new one."""
    for number in range(4):
        await store.enqueue(new_message(to=f"+1555000000{number}"))
    async with twilio(sandbox.base_url) as provider:
        slow = _Held(provider)
        dispatcher = sender(store, slow, concurrency=2).dispatcher
        async with running(dispatcher.run()):
            await until(lambda: sending(database, 2))
            # The stop that follows comes first: a timer's turn is after what is ready already.
            asyncio.get_running_loop().call_later(0.01, slow.go_on.set)
        assert await unsettled(database) == [("due", 0), ("due", 0)]
        assert len(sandbox.state.messages) == 2


class _Held:
    """A provider that is called only once the test says so."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self.absorbs_repeats = provider.absorbs_repeats
        self.sent_messages = provider.sent_messages
        self._provider = provider
        self.go_on = asyncio.Event()

    async def send(self, message: ClaimedSend) -> SendOutcome:
        await self.go_on.wait()
        return await self._provider.send(message)


class _Interrupted(SqlOutboxStore):
    """A store whose database is away for the first few outcomes and claims."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, now, ANY_TIME)
        self.failures = Counter({"settle": 3, "claim": 3, "unknown": 3})

    def _fail(self, name: str) -> None:
        if self.failures[name]:
            self.failures[name] -= 1
            raise UnavailableError("the database is away")

    async def claim(
        self, *, limit: int, lease: timedelta, routes: Routes = ALL_OPEN
    ) -> list[ClaimedSend]:
        self._fail("claim")
        return list(await super().claim(limit=limit, lease=lease, routes=routes))

    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> bool:
        self._fail("settle")
        return await super().settle(message, outcome, retry_at, move_to=move_to)

    async def unknown(self, *, limit: int, lease: timedelta) -> list[ClaimedSend]:
        self._fail("unknown")
        return list(await super().unknown(limit=limit, lease=lease))


class _Forgetful(SqlOutboxStore):
    """A store that can't write down that a message was accepted. What is too late for its lease,
    as on a busy machine, is tried again."""

    forgets = True

    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> bool:
        if self.forgets and outcome.kind is OutcomeKind.ACCEPTED:
            raise UnavailableError("the database is away")
        return await super().settle(message, outcome, retry_at, move_to=move_to)


async def test_database_away(database: Database, sandbox: RunningSandbox) -> None:
    """A database that is away for a while ends neither loop and doubles nothing."""
    store = _Interrupted(database)
    await store.enqueue(new_message())
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
    assert not +store.failures or set(+store.failures) == {"unknown"}
    await assert_sent_once(database, sandbox)


async def test_outcome_that_is_never_recorded(database: Database, sandbox: RunningSandbox) -> None:
    """When an outcome can't be written until the lease has ended, the message is looked up."""
    store = _Forgetful(database, now, ANY_TIME)
    await store.enqueue(new_message())
    async with twilio(sandbox.base_url) as provider:
        process = sender(store, provider, lease=2, send_timeout=1)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until(lambda: accepted(sandbox))
        store.forgets = False
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def test_given_up(database: Database, store: SqlOutboxStore, sandbox: RunningSandbox) -> None:
    """A message that can't be sent for too long fails with a clear code and frees the next one."""
    await store.enqueue(new_message("first"))
    await store.enqueue(new_message("second"))
    sandbox.set_faults(Faults(rate_limited=RateLimited(retry_after=0, times=2)))
    async with twilio(sandbox.base_url) as provider:
        dispatcher = Dispatcher(
            store,
            {"twilio": provider},
            clock=now,
            on_accepted=lambda _: asyncio.sleep(0),
            poll=timedelta(seconds=0.1),
            retry=RetryPolicy(first_pause=timedelta(), max_attempts=2),
        )
        async with running(dispatcher.run()):
            await until_settled(database)
    first, second = await stored(database)
    assert (first.status, first.error_code) == ("failed", "gave_up")
    assert "2 attempts" in first.error_message
    assert "20429" in first.error_message
    assert second.provider_message_id is not None


@pytest.mark.parametrize("contacts", [[0, 0, 0], [0, 1, 2]])
async def test_what_waited_is_sent_without_a_poll(
    store: SqlOutboxStore, database: Database, sandbox: RunningSandbox, contacts: list[int]
) -> None:
    """What waits behind a message of its conversation, or for a place, follows at once."""
    for contact in contacts:
        await store.enqueue(new_message(to=f"+9725012345{contact:02}"))
    async with twilio(sandbox.base_url) as provider:
        dispatcher = Dispatcher(
            store,
            {"twilio": provider},
            clock=now,
            on_accepted=lambda _: asyncio.sleep(0),
            concurrency=1 if len(set(contacts)) > 1 else 8,
            poll=timedelta(hours=1),
        )
        async with running(dispatcher.run()):
            await until_settled(database)
    await assert_sent_once(database, sandbox)


async def test_two_processes_share_the_work(
    database_url: str, database: Database, store: SqlOutboxStore, sandbox: RunningSandbox
) -> None:
    """Two dispatchers send hundreds of messages, each once and in each conversation's order."""
    for number in range(5):
        await asyncio.gather(
            *(
                store.enqueue(new_message(f"text {number}", to=f"+155500000{contact:02}"))
                for contact in range(40)
            )
        )
    sandbox.set_faults(Faults(error_500_after_accept=Fault(times=5), error_500=ApiFault(times=5)))
    async with contextlib.AsyncExitStack() as stack:
        loops = []
        for _ in range(2):
            own = await stack.enter_async_context(open_database(database_url))
            provider = await stack.enter_async_context(twilio(sandbox.base_url))
            process = sender(SqlOutboxStore(own, now, ANY_TIME), provider)
            loops += [process.dispatcher.run(), process.reconciler.run()]
        async with running(*loops):
            await until_settled(database, 90)
    assert len(sandbox.state.messages) == 200
    await assert_sent_once(database, sandbox)
