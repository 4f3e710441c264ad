"""`switchboard replay` as a process: the journal once more, on real servers and databases."""

import asyncio
import random
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from services.common.journal.events import JournalEvent
from services.common.journal.streams import INGEST_STREAM
from services.messaging.domain.message import Template
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.cli import MESSAGING, ended, start
from tests.support.databases import migrated
from tests.support.journal import publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import message_event, rows, state, status_event
from tests.support.replaying import Setup
from tests.support.sending import new_message, now, open_database, until

EVER = "2000-01-01"


async def send_template(database: Database) -> str:
    """Store a message of ours to a contact who doesn't write; returns our id for it."""
    template = replace(new_message("", to="+972509999999"), template=Template("HX1"))
    message, _ = await SqlOutboxStore(database, now).enqueue(template)
    return message.id


def history(chance: random.Random) -> list[JournalEvent]:
    """Messages, opt-outs and reports about messages that nobody knows, in no order."""
    texts = ["Hello", "STOP", "START", "הסר", "How much?", ""]
    events = [
        message_event(number, contact=chance.randrange(12), body=chance.choice(texts))
        for number in range(400)
    ]
    for sid in [f"SMgone{number}" for number in range(60)]:
        events += [status_event(sid, status) for status in ("sent", "delivered", "read")]
    chance.shuffle(events)
    return events


def inbound(stored: dict[str, Any]) -> dict[str, Any]:
    """What came from contacts: that is all a journal can give back."""
    sids = {key for key, row in stored["messages"].items() if row["direction"] == "inbound"}
    written = {row["conversation_id"] for key, row in stored["messages"].items() if key in sids}
    return {
        "contacts": {key: stored["contacts"][key] for key, _ in written},
        "conversations": {key: stored["conversations"][key] for key in written},
        "messages": {key: stored["messages"][key] for key in sids},
        "events": [one for one in stored["events"] if one[0] in sids],
    }


async def test_an_empty_database_gets_the_same_state(setup: Setup, other_database_url: str) -> None:
    """Messages and statuses in any order, with repetitions, leave behind after a replay what they
    left behind live; reports about messages that only the lost database knew are parked."""
    sent = [await send_template(setup.database) for _ in range(3)]
    hinted = [
        status_event(f"SMours{number}", "delivered", message_id=message_id)
        for number, message_id in enumerate(sent)
    ]
    events = history(random.Random(7))
    await setup.consume(*events, *hinted, *random.Random(8).choices(events, k=200))

    first = await setup.replay("--since", EVER, into=other_database_url)
    assert first.code == 0, first.err
    assert "creating its tables" in first.err
    assert "messages  " in first.out
    async with open_database(other_database_url) as database:
        expected, found = await state(setup.database), await state(database)
        assert inbound(found) == inbound(expected)
        assert len(found["messages"]) == 400
        ours = [(f"status:SMours{number}:delivered", "delivered") for number in range(3)]
        assert found["parked"] == sorted([*expected["parked"], *ours])
        assert found["outbox"] == []
        assert found["replies"] == {}

        again = await setup.replay("--since", EVER, into=other_database_url)
        assert again.code == 0, again.err
        assert " 0 new" in again.out
        assert await state(database) == found


async def test_a_replay_into_the_live_database_changes_nothing(
    setup: Setup, database_url: str
) -> None:
    """Into a database that has everything it adds nothing, sends nothing, and leaves the journal
    and the place of its consumer alone."""
    await send_template(setup.database)
    await setup.consume(*history(random.Random(1)))
    before = await state(setup.database)
    js = setup.client.jetstream()
    stream = await js.stream_info(INGEST_STREAM)
    replayed = await setup.replay("--since", "1d", into=database_url)
    assert replayed.code == 0, replayed.err
    assert await state(setup.database) == before
    after = await js.stream_info(INGEST_STREAM)
    assert after.state.last_seq == stream.state.last_seq
    assert after.state.consumer_count == stream.state.consumer_count
    assert await settled(setup.client)()


async def test_time_and_kind_choose_what_is_replayed(setup: Setup, other_database_url: str) -> None:
    """Only what came into the journal in the time named, and is of the kind named, is stored."""
    times = []
    for batch in range(3):
        await publish(setup.client, *(message_event(10 * batch + number) for number in range(5)))
        await publish(setup.client, status_event(f"SMx{batch}", "sent"))
        await asyncio.sleep(0.05)
        times.append(datetime.now(UTC).isoformat())
        await asyncio.sleep(0.05)

    async def numbers(*options: str) -> list[list[int]]:
        replayed = await setup.replay(*options, into=other_database_url)
        assert replayed.code == 0, replayed.err
        async with open_database(other_database_url) as database:
            sids = [row["provider_message_id"] for row in await rows(database, "messages")]
            parked = await rows(database, "parked_statuses")
        return [sorted({int(sid[2:]) // 10 for sid in sids}), [len(sids), len(parked)]]

    assert await numbers("--since", times[0], "--until", times[1], "--kind", "message") == [
        [1],
        [5, 0],
    ]
    assert await numbers("--since", times[1], "--kind", "status") == [[1], [5, 1]]
    assert await numbers("--since", times[2]) == [[1], [5, 1]]
    assert await numbers("--since", "1h", "--until", times[0]) == [[0, 1], [10, 2]]


async def test_a_stopped_replay_can_be_gone_on_with(setup: Setup, other_database_url: str) -> None:
    """Ctrl-C ends it after a batch with the place to go on from, and nothing is missing then."""
    for first in range(0, 6000, 500):
        batch = range(first, first + 500)
        await asyncio.gather(*(publish(setup.client, message_event(n)) for n in batch))
    migrated(other_database_url)
    process = await setup.start("--since", EVER, into=other_database_url)
    async with open_database(other_database_url) as database:

        async def stopped_after_a_batch() -> bool:
            # Meanwhile nothing more is stored, however fast it is.
            async with database.write() as connection:
                if database.dialect == "postgresql":
                    await connection.execute(text("LOCK TABLE messages IN EXCLUSIVE MODE"))
                if not await rows(database, "contacts"):
                    return False
                process.send_signal(signal.SIGINT)
                return True

        await until(stopped_after_a_batch)
        stopped = await ended(process)
        assert stopped.code == 130, stopped.err
        assert "Traceback" not in stopped.err
        assert len(await rows(database, "messages")) < 6000
        place = stopped.out.rpartition("Go on with --since ")[2].strip()
        finished = await setup.replay("--since", place, into=other_database_url)
        assert finished.code == 0, finished.err
        assert len(await rows(database, "messages")) == 6000


async def test_what_cannot_be_stored_is_skipped_with_its_reason(
    setup: Setup, other_database_url: str
) -> None:
    """Garbage in the journal is named by its sequence; everything else is stored."""
    await publish(setup.client, message_event(1))
    await setup.client.jetstream().publish("ingest.whatsapp.message", b"\xff\xfe", timeout=60)
    await publish(setup.client, message_event(2))
    replayed = await setup.replay("--since", EVER, into=other_database_url)
    assert replayed.code == 0, replayed.err
    assert "INGEST 2: no headers" in replayed.out
    async with open_database(other_database_url) as database:
        assert len(await rows(database, "messages")) == 2


async def test_what_is_in_the_way_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    """No database, or no configuration: a sentence or a report, and a code for programs."""
    environ = {"NATS_URL": nats_server.url}
    nowhere = {**MESSAGING, **environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}
    command = ("replay", "--since", "1d")
    unreachable = await ended(await start(*command, folder=tmp_path, environ=nowhere))
    assert unreachable.code == 1
    assert "the database can't be used" in unreachable.err
    assert "Traceback" not in unreachable.err
    # The sandbox's variables stand in for messaging's, but for the database.
    incomplete = await ended(await start(*command, folder=tmp_path, environ=environ))
    assert incomplete.code == 78
    assert "DATABASE_URL" in incomplete.err
