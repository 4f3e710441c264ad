"""Events of calls from the journal into the database, on real servers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from services.common.errors import UnavailableError
from services.common.journal.dead import DeadLetterStream
from services.common.journal.events import EventKind
from services.common.journal.streams import INGEST_STREAM
from services.messaging.consumers.call_signal import SUBJECT, NatsCallSignal
from services.messaging.consumers.voice import DURABLE, voice_consumer
from services.messaging.domain.call import CallOutcome, CallStatus, TurnState
from services.messaging.providers.twilio import voice_webhooks
from services.messaging.store.call_models import CallEventRow
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.usecases.calls.receive import ReceiveCalls
from services.messaging.usecases.calls.rules import CallRules
from services.messaging.usecases.calls.take_in import TakeInCalls, VoiceEvent
from tests.support.calls import (
    call_event,
    calls_settled,
    consuming_calls,
    continuation_event,
    recording_event,
    status_event,
    voice_event,
)
from tests.support.journal import consuming, dead, journal, publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import message_event, receive, rows
from tests.support.sending import now, running, until

Turns = list[tuple[str, int]]


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal(nats_server) as client:
        yield client


@pytest.fixture
def turns() -> Turns:
    return []


@pytest.fixture
def store(database: Database) -> SqlCallStore:
    return SqlCallStore(database, now)


@pytest.fixture
def take_in(store: SqlCallStore, turns: Turns) -> TakeInCalls:
    receive = ReceiveCalls(
        store,
        CallRules(language="en-US"),
        on_turn=lambda call_id, number: turns.append((call_id, number)),
        missed=None,
        clock=now,
    )
    return TakeInCalls(store, receive)


async def test_a_call_is_stored(
    client: Client, database: Database, store: SqlCallStore, take_in: TakeInCalls, turns: Turns
) -> None:
    """What webhooks told of a call stands in the database, and its turns are handed on."""
    events = [
        call_event(),
        recording_event(1, seconds=5),
        continuation_event(1, "part", 1, seconds=8),
        continuation_event(2, "silence", seconds=14),
        recording_event(3, voicemail=True, seconds=20),
        status_event("completed", seconds=30),
    ]
    await publish(client, *events)
    async with consuming_calls(client, take_in):
        await until(calls_settled(client))
    call = await store.call("CA1")
    assert (call.status, call.outcome) == (CallStatus.COMPLETED, CallOutcome.VOICEMAIL)
    assert [(turn.number, turn.state) for turn in call.turns] == [
        (1, TurnState.WORKING),
        (2, TurnState.SILENT),
        (3, TurnState.WORKING),
    ]
    assert call.turns[0].played == 1
    assert set(turns) == {("CA1", 1), ("CA1", 3)}
    async with database.read() as connection:
        kept = await connection.scalar(select(func.count()).select_from(CallEventRow))
    assert kept == len(events)


async def test_each_consumer_has_its_own_events(
    client: Client, database: Database, store: SqlCallStore, take_in: TakeInCalls
) -> None:
    """Events of calls and of messages in one journal come where they belong, and none to DEAD."""
    await publish(client, call_event(), message_event(1), status_event("completed"))
    await publish(client, message_event(2))
    async with consuming(client, receive(SqlIngestStore(database), clock=now, replies=None)):
        await until(settled(client))
    await publish(client, call_event("CA2"))
    async with consuming_calls(client, take_in):
        await until(calls_settled(client))
    assert (await store.call("CA1")).status is CallStatus.COMPLETED
    assert len(await rows(database, "messages")) == 2
    assert await dead(client) == []


async def test_poison_goes_to_dead_and_back(
    client: Client, store: SqlCallStore, take_in: TakeInCalls
) -> None:
    """An event that can't be understood goes to DEAD alone; put back, it is the same consumer's."""
    form = {"CallSid": "CA1", "RecordingSid": "RE1", "RecordingUrl": "https://api.twilio.com/x"}
    poison = [
        voice_event(EventKind.VOICE_RECORDING, "r1", form, {"turn": "abc"}),
        voice_event(EventKind.VOICE_CALL, "c0", {"From": "+15550001111"}),
        voice_event(EventKind.VOICE_CALL, "c1", {"CallSid": "CA7"}, provider="nobody"),
    ]
    await publish(client, *poison, call_event())
    async with consuming_calls(client, take_in):
        await until(calls_settled(client))
        assert (await store.call("CA1")).status is CallStatus.RINGING
        letters = await dead(client)
        assert [letter.subject for letter in letters] == [
            "dead.voice.recording",
            "dead.voice.call",
            "dead.voice.call",
        ]
        assert all(letter.headers and "+1555" not in str(letter.headers) for letter in letters)
        stream = DeadLetterStream(client.jetstream())
        letter = await stream.get(1)
        assert letter.original_subject == "ingest.voice.recording"
        await stream.replay(1)
        await until(calls_settled(client))
        assert [one.headers["ce-id"] for one in await dead(client) if one.headers] == [
            "c0",
            "c1",
            "r1",
        ]


async def test_events_wait_for_the_database(
    client: Client, store: SqlCallStore, take_in: TakeInCalls
) -> None:
    """Nothing is acknowledged, lost or given up while the database is away."""
    away = 5

    async def sometimes(events: Sequence[VoiceEvent]) -> None:
        nonlocal away
        if away:
            away -= 1
            raise UnavailableError("the database doesn't answer")
        await take_in(events)

    await publish(client, call_event(), recording_event())
    async with consuming_calls(client, sometimes):
        await until(calls_settled(client))
    assert len((await store.call("CA1")).turns) == 1
    assert await dead(client) == []


async def test_one_that_waits_holds_up_few(client: Client) -> None:
    """After a breakdown what is handled counts, though one among hundreds has to come again."""
    handled: set[str] = set()
    most = asyncio.Event()

    async def handle(events: Sequence[VoiceEvent]) -> None:
        if any(event.kept.call.call_id == "CA0" for event in events):
            raise UnavailableError("the message to who was missed has to wait")
        handled.update(event.kept.call.call_id for event in events)
        if len(handled) >= 200:
            most.set()

    await publish(client, *(call_event(f"CA{number}") for number in range(300)))
    consumer = voice_consumer(
        client, handle, {"twilio": voice_webhooks}, registry=CollectorRegistry()
    )
    async with running(consumer.run()), asyncio.timeout(30):
        await most.wait()
    assert "CA0" not in handled


async def test_one_bad_event_takes_none_along(
    client: Client, store: SqlCallStore, take_in: TakeInCalls
) -> None:
    """An event that brings its handling down goes to DEAD, and those beside it are stored."""

    async def fragile(events: Sequence[VoiceEvent]) -> None:
        if any(event.kept.call.call_id == "CA-bad" for event in events):
            raise RuntimeError("a fault of ours")
        await take_in(events)

    await publish(client, call_event("CA1"), call_event("CA-bad"), call_event("CA2"))
    async with consuming_calls(client, fragile):
        await until(calls_settled(client))
    assert {(await store.call(one)).call_id for one in ("CA1", "CA2")} == {"CA1", "CA2"}
    assert len(await dead(client)) == 1


async def test_a_change_wakes_every_replica(nats_server: NatsServer) -> None:
    """Who waits for a call is woken by a change in any replica, and by that of no other call."""
    async with journal(nats_server) as here, journal(nats_server) as there:
        ours, theirs = NatsCallSignal(here), NatsCallSignal(there)
        running = [asyncio.create_task(one.run()) for one in (ours, theirs)]
        with ours.watching("CA1") as woken, ours.watching("CA2") as other:
            async with asyncio.timeout(60):
                while not woken.is_set():
                    # Until the subscription is there.
                    theirs.announce("CA1")
                    await asyncio.sleep(0.02)
            assert not other.is_set()
        with ours.watching("CA1") as woken:
            ours.announce("CA1")
            assert woken.is_set()
            woken.clear()
            with theirs.watching("CA1") as told:
                async with asyncio.timeout(60):
                    while not told.is_set():
                        await there.flush()
                        await asyncio.sleep(0.02)
            await here.flush()
            # Its own words come back to who said them, too.
            assert not woken.is_set()
        await there.publish(SUBJECT, b"\xff\xfe")
        await there.flush()
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)


async def test_events_of_a_killed_process_come_again_while_the_caller_waits(
    client: Client,
) -> None:
    """What a process took and didn't acknowledge is delivered anew within seconds."""
    taken = asyncio.Event()

    async def take(events: Sequence[VoiceEvent]) -> None:
        taken.set()

    consumer = voice_consumer(
        client, take, {"twilio": voice_webhooks}, registry=CollectorRegistry()
    )
    async with running(consumer.run()):
        await publish(client, call_event())
        await taken.wait()
        info = await client.jetstream().consumer_info(INGEST_STREAM, DURABLE.name)
    assert info.config.ack_wait is not None
    assert info.config.ack_wait <= 5
