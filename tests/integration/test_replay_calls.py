"""`switchboard replay` brings calls back, and has nobody answered or asked about them."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from services.common.journal.events import EventKind
from services.messaging.domain.call import AnswerPart, CallOutcome, CallStatus, TurnState
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from services.messaging.usecases.calls.restore import RestoreCalls
from tests.support.calls import (
    START,
    call_event,
    continuation_event,
    recording,
    recording_event,
    report,
    seen,
    status_event,
    voice_event,
)
from tests.support.cli import MESSAGING, Ended, ended, start
from tests.support.journal import journal, publish
from tests.support.nats import NatsServer
from tests.support.receiving import message_event, rows
from tests.support.sending import ManualClock, now

EVENTS = [
    call_event(),
    recording_event(1, seconds=5),
    continuation_event(1, "part", 1, seconds=8),
    continuation_event(2, "silence", seconds=14),
    status_event("completed", seconds=30),
    call_event("CA2", seconds=1),
    recording_event(1, "CA2", seconds=9, voicemail=True),
    status_event("completed", "CA2", seconds=20),
]


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal(nats_server) as client:
        yield client


@pytest.fixture
def store(database: Database) -> SqlCallStore:
    return SqlCallStore(database, now)


async def replay(server: NatsServer, url: str, folder: Path, *options: str) -> Ended:
    environ = {**MESSAGING, "NATS_URL": server.url, "DATABASE_URL": url}
    return await ended(
        await start("replay", "--since", "2000-01-01", *options, folder=folder, environ=environ)
    )


async def test_calls_come_back(
    nats_server: NatsServer,
    client: Client,
    database: Database,
    database_url: str,
    store: SqlCallStore,
    tmp_path: Path,
) -> None:
    """Calls stand in an empty database with their turns, final: nobody works on them again."""
    poison = voice_event(EventKind.VOICE_CALL, "bad", {"From": "+15550001111"})
    await publish(client, *EVENTS, message_event(1), poison)
    for _ in range(2):
        result = await replay(nats_server, database_url, tmp_path)
        assert result.code == 0, result.err
        assert "calls     8" in result.out
        assert "skipped   1" in result.out
        assert "+1555" not in result.out + result.err
        call = await store.call("CA1")
        assert (call.status, call.outcome) == (CallStatus.COMPLETED, CallOutcome.ANSWERED)
        assert call.started_at == START
        assert [(turn.state, turn.played) for turn in call.turns] == [
            (TurnState.FAILED, 1),
            (TurnState.SILENT, 0),
        ]
        message = await store.call("CA2")
        assert message.outcome is CallOutcome.VOICEMAIL
        assert message.turns[0].recording_id == "RE-CA2-1"
        assert await store.unfinished(limit=9) == []
    assert len(await rows(database, "call_events")) == len(EVENTS)
    assert await rows(database, "outbox") == []


async def test_kinds(
    nats_server: NatsServer,
    client: Client,
    database: Database,
    database_url: str,
    tmp_path: Path,
) -> None:
    """`--kind` takes calls alone, or leaves them out."""
    await publish(client, *EVENTS, message_event(1))
    assert (await replay(nats_server, database_url, tmp_path, "--kind", "status")).code == 0
    assert await rows(database, "calls") == []
    assert (await replay(nats_server, database_url, tmp_path, "--kind", "call")).code == 0
    assert len(await rows(database, "calls")) == 2
    assert await rows(database, "messages") == []


async def test_what_is_known_stays(store: SqlCallStore) -> None:
    """A restored event changes nothing of a turn that was answered, and no outcome."""
    await store.recorded(recording())
    turn = await store.claim_turn("CA1", 1, lease=timedelta(seconds=9))
    assert turn is not None
    await store.add_part(turn, AnswerPart("Good day.", None))
    await store.finish_turn(turn, TurnState.DONE)
    await store.set_outcome("CA1", CallOutcome.VOICEMAIL)
    before = await store.call("CA1")
    await RestoreCalls(store, clock=now).recorded(recording())
    assert await store.call("CA1") == before


@pytest.mark.parametrize("absent", [True, False])
async def test_a_message_comes_back_in_any_order(store: SqlCallStore, absent: bool) -> None:
    """A message after an answer is one again, whatever was journaled first; none that is absent."""
    left: dict[str, Any] = {"voicemail": True, "recording_id": "RE2"}
    for number, order in enumerate(itertools.permutations(["message", "end", "gone"])):
        call_id = f"CA{number}"
        restore = RestoreCalls(store, clock=now)
        await restore.recorded(recording(1, call_id))
        await restore.played(seen(call_id), 1, 1)
        for event in order:
            match event:
                case "message":
                    await restore.recorded(recording(2, call_id, **left))
                case "end":
                    await restore.report(report(CallStatus.COMPLETED, call_id))
                case "gone" if absent:
                    await restore.recorded(recording(2, call_id, absent=True, **left))
        wanted = CallOutcome.ANSWERED if absent else CallOutcome.VOICEMAIL
        assert (await store.call(call_id)).outcome is wanted, order


async def test_a_call_of_this_moment_is_left_to_who_answers(store: SqlCallStore) -> None:
    """A replay that meets a call under way doesn't take its turn from it."""
    clock = ManualClock(START + timedelta(minutes=1))
    await RestoreCalls(store, clock=clock).recorded(recording())
    assert await store.unfinished(limit=9) == [("CA1", 1)]
    clock.forward(7200)
    await RestoreCalls(store, clock=clock).recorded(recording(2))
    assert await store.unfinished(limit=9) == [("CA1", 1)]
