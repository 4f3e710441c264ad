"""What messaging did comes back from the journal, and nothing of it is done a second time."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client

from sandbox.faults import Fault, Faults, Hang, RateLimited, Reject, ReorderedCallbacks
from services.common.journal.reading import read_events
from services.common.journal.streams import ACTS_STREAM, INGEST_STREAM
from services.messaging.consumers.act_events import decode_act
from services.messaging.consumers.decoding import decode
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import Author, Media, StatusReport, Template
from services.messaging.ports.acts import Act, Attempted, Ended, Opened
from services.messaging.ports.sending import ClaimedSend
from services.messaging.providers.twilio import webhooks
from services.messaging.store.acts import SqlActLog
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.restoring import SqlActRestorer
from tests.support.acting import (
    System,
    act_publisher,
    all_journaled,
    outbox_states,
    running_system,
    sending,
)
from tests.support.journal import publish
from tests.support.receiving import clear, receive, rows, status_event
from tests.support.replaying import Setup, differences, public_state
from tests.support.sandbox import OUR_NUMBER
from tests.support.sending import (
    ANY_TIME,
    NOBODY,
    ManualClock,
    new_message,
    now,
    open_database,
    open_sandbox,
    running,
    twilio,
    until,
    until_settled,
)

EVER = "2000-01-01"
ADA, BOB, EVE = "+972501111111", "+972502222222", "+972503333333"
EVES_USER_ID = "US.1349871349"


async def live(system: System) -> None:
    """A day in short: everything that can be done, and can happen to a message."""
    await system.write("SMada1", f"whatsapp:{ADA}", "Hello", ProfileName="Ada")
    await system.answer("Good morning")
    await system.write("SMbob1", f"whatsapp:{BOB}", "How much?", ProfileName="Bob")
    await system.write("SMeve1", f"whatsapp:{EVES_USER_ID}", "Me first")
    greeting = await system.sent("To Ada", to=ADA, request_id="key-1", request_hash="hash-1")
    system.first.set_faults(Faults(reordered_callbacks=ReorderedCallbacks()))
    await system.sent("In a wrong order", to=ADA, reply_to_message_id=greeting.id)
    await system.sent("", to=BOB, template=Template(f"HX{0:032x}", {"1": "Tuesday"}))
    picture = (Media("https://files.example/price.png", "image/png"),)
    await system.sent("A picture", to=BOB, media=picture)
    await system.sent("Refused", Faults(reject=Reject(error_code=21211, times=1)), to=BOB)
    await system.sent("Answer lost", Faults(error_500_after_accept=Fault(times=1)), to=BOB)
    await system.sent("No answer", Faults(hang=Hang(times=1, accept=True)), to=ADA)
    await system.sent("Elsewhere", Faults(rate_limited=RateLimited(times=1)), to="+972504444444")
    system.first.set_faults(Faults())
    conversations = {
        one.contact_address: one.id
        for one in (await system.conversations.conversations(limit=10, after=None)).conversations
    }
    ada, bob = conversations[f"whatsapp:{ADA}"], conversations[f"whatsapp:{BOB}"]
    await system.conversations.mark_read(ada, None)
    await system.conversations.mark_read(conversations[f"whatsapp:{EVES_USER_ID}"], None)
    await system.write("SMada2", f"whatsapp:{ADA}", "And another thing")
    await system.conversations.pause_assistant(ada)
    await system.conversations.resume_assistant(ada)
    await system.conversations.pause_assistant(bob)
    await system.sent("A person here", to=EVE, author=Author.PERSON)
    await system.write("SMbob2", f"whatsapp:{BOB}", "STOP")
    # Two conversations turn out to be one.
    await system.write("SMeve2", f"whatsapp:{EVE}", "It is me", ExternalUserId=EVES_USER_ID)
    await system.sent("Dear Eve", to=EVE)
    await system.quiet()


@pytest.fixture
async def system(setup: Setup) -> AsyncIterator[System]:
    async with running_system(setup.client, setup.database) as system:
        yield system


async def journaled_acts(client: Client) -> list[Act]:
    js = client.jetstream()
    last = (await js.stream_info(ACTS_STREAM)).state.last_seq
    return [
        decode_act(message.headers, message.data)
        async for batch in read_events(js, ACTS_STREAM, last=last)
        for message in batch
    ]


async def journaled_webhooks(client: Client) -> list[InboundMessage | StatusReport | SamePerson]:
    js = client.jetstream()
    last = (await js.stream_info(INGEST_STREAM)).state.last_seq
    return [
        decode(message.headers, message.data, {webhooks.PROVIDER: webhooks})
        async for batch in read_events(js, INGEST_STREAM, last=last)
        for message in batch
    ]


async def test_a_replay_gives_the_same_state(
    setup: Setup, system: System, other_database_url: str
) -> None:
    """After everything that can happen an empty database has the same conversations, messages and
    histories under the same ids, however often the replay is given, and sends nothing again."""
    await live(system)
    expected = await public_state(setup.database)
    statuses = {one.delivery.status.value for one in expected["messages"].values()}
    assert {"received", "read", "failed"} <= statuses
    # First a part, as if it had been stopped.
    middle = sorted(one.created_at for one in expected["messages"].values())[8]
    part = await setup.replay(
        "--since", EVER, "--until", middle.isoformat(), into=other_database_url
    )
    assert part.code == 0, part.err
    for _ in range(2):
        replayed = await setup.replay("--since", EVER, into=other_database_url)
        assert replayed.code == 0, replayed.err
        assert " skipped   0" in replayed.out
        async with open_database(other_database_url) as database:
            assert differences(expected, await public_state(database)) == []
            assert await outbox_states(database) == []
            assert await rows(database, "parked_statuses") == []
            assert await rows(database, "pending_replies") == []
            assert await all_journaled(database)
    bodies = system.bodies()
    async with open_database(other_database_url) as database:
        # The key of a request still stands for its message.
        same, is_new = await SqlOutboxStore(database, now, ANY_TIME).enqueue(
            new_message("To Ada", to=ADA, request_id="key-1", request_hash="hash-1")
        )
        assert not is_new
        assert same == expected["messages"][same.id]
        async with sending(database, system.first, system.second, NOBODY):
            await until_settled(database)
    assert system.bodies() == bodies


async def test_nothing_is_sent_twice_whatever_was_lost(
    setup: Setup, system: System, other_database_url: str
) -> None:
    """However many of the last acts never came into the journal, what the providers have already
    isn't sent again, and what they don't have is sent at most once."""
    await system.write("SMada1", f"whatsapp:{ADA}", "Hello")
    for number, faults in enumerate(
        (
            Faults(),
            Faults(reject=Reject(error_code=21211, times=1)),
            Faults(hang=Hang(times=1, accept=True)),
            Faults(rate_limited=RateLimited(times=1)),
        )
    ):
        await system.sent(f"text {number}", faults, to=ADA)
    system.first.set_faults(Faults())
    await system.quiet()
    acts = await journaled_acts(setup.client)
    bodies = system.bodies()
    assert bodies == ["text 0", "text 2", "text 3"]
    replayed = await setup.replay("--since", EVER, "--kind", "message", into=other_database_url)
    assert replayed.code == 0, replayed.err
    async with open_database(other_database_url) as database:
        for kept in range(len(acts)):
            await clear(database)
            await restore(database, acts[:kept])
            assert all(state == "unknown" for state, _ in await outbox_states(database))
            async with sending(database, system.first, system.second, NOBODY):
                await until_settled(database)
            # The one that Twilio refused may be tried again: nobody ever got it.
            assert [one for one in system.bodies() if one != "text 1"] == bodies


async def restore(database: Database, acts: list[Act]) -> None:
    restorer = SqlActRestorer(database, now)
    await restorer.restore(acts)
    await restorer.release()


async def test_order_and_repetition_do_not_matter(setup: Setup, system: System) -> None:
    """Acts in any pieces and repeatedly, and what became of messages in any order, leave the same
    state behind."""
    await live(system)
    await system.stop()
    expected = await public_state(setup.database)
    acts, webhooks = await journaled_acts(setup.client), await journaled_webhooks(setup.client)
    messages = [one for one in webhooks if isinstance(one, InboundMessage)]
    reports = [one for one in webhooks if isinstance(one, StatusReport)]
    handle = receive(SqlIngestStore(setup.database), clock=now, replies=None)
    for seed in range(4):
        chance = random.Random(seed)
        await clear(setup.database)
        await restore(setup.database, [act for act in acts if isinstance(act, Opened)])
        await handle(messages, chance.sample(reports, k=5))
        left = await restore_in_pieces(setup.database, acts, chance)
        assert left == []
        await handle([], reports)
        found = await public_state(setup.database)
        assert differences(without_reading(expected), without_reading(found)) == []


def without_reading(state: dict[str, Any]) -> dict[str, Any]:
    """A state without how much of it was read: that depends on what came when."""
    conversations = {
        key: {name: value for name, value in one.items() if name != "unread_count"}
        for key, one in state["conversations"].items()
    }
    return {**state, "conversations": conversations}


async def restore_in_pieces(
    database: Database, acts: list[Act], chance: random.Random
) -> list[Act]:
    """What became of messages may come at any time, and everything twice; returns what is left."""
    places = [
        (chance.uniform(0, len(acts)) if isinstance(act, Attempted | Ended) else place, act)
        for place, act in enumerate(acts)
    ]
    waiting = [act for _, act in sorted(places, key=lambda one: one[0])]
    waiting += chance.choices(acts, k=20)
    restorer = SqlActRestorer(database, now)
    orphans: list[Act] = []
    while waiting:
        size = chance.randrange(1, 20)
        piece, waiting = waiting[:size], waiting[size:]
        orphans += (await restorer.restore(piece)).orphans
    return list((await restorer.restore(orphans)).orphans)


async def test_what_was_never_tried_is_sent_once(setup: Setup, other_database_url: str) -> None:
    """A message that waited to be sent when the database was lost goes out once, after a look."""
    await SqlOutboxStore(setup.database, now, ANY_TIME).enqueue(new_message("Waiting", to=ADA))
    async with running(act_publisher(setup.client, setup.database).run()):

        async def journaled() -> bool:
            return await all_journaled(setup.database)

        await until(journaled)
    replayed = await setup.replay("--since", EVER, into=other_database_url)
    assert "Of 1 messages the journal doesn't tell the end" in replayed.out
    async with (
        open_database(other_database_url) as database,
        open_sandbox() as first,
        open_sandbox() as second,
    ):
        assert await outbox_states(database) == [("unknown", True)]
        async with sending(database, first, second, NOBODY):
            await until_settled(database)
        assert [one.body for one in first.state.messages.values()] == ["Waiting"]
        assert not second.state.messages


async def test_a_report_proves_what_the_lost_end_would_have_said(
    setup: Setup, other_database_url: str
) -> None:
    """A report that carries our id settles a message whose end is lost, also when the report came
    to the journal before the message did."""
    store = SqlOutboxStore(setup.database, now, ANY_TIME)
    message, _ = await store.enqueue(new_message("Hello", to=ADA))
    await publish(setup.client, status_event("SMearly", "sent", message_id=message.id))
    await act_publisher(setup.client, setup.database).publish()
    replayed = await setup.replay("--since", EVER, into=other_database_url)
    assert replayed.code == 0, replayed.err
    async with open_database(other_database_url) as database:
        assert await outbox_states(database) == []
        [row] = await rows(database, "messages")
        assert (row["provider_message_id"], row["status"]) == ("SMearly", "sent")
        assert await rows(database, "parked_statuses") == []


async def test_what_has_no_text_takes_nothing_from_others(
    setup: Setup, other_database_url: str
) -> None:
    """A template whose end is lost isn't taken for the text that was sent after it, and isn't sent
    once more."""
    store = SqlOutboxStore(setup.database, now, ANY_TIME)
    await store.enqueue(new_message("", to=ADA, template=Template(f"HX{0:032x}")))
    await store.enqueue(new_message("Hello", to=ADA))
    await act_publisher(setup.client, setup.database).publish()
    replayed = await setup.replay("--since", EVER, into=other_database_url)
    assert replayed.code == 0, replayed.err
    async with (
        open_database(other_database_url) as database,
        open_sandbox() as first,
        open_sandbox() as second,
        twilio(first.base_url) as lost,
    ):
        # Twilio refused the template and has the text; neither came into the journal.
        await lost.send(claimed("Hello", ADA))
        async with sending(database, first, second, NOBODY):
            await until_settled(database)
        assert [one.body for one in first.state.messages.values()] == ["Hello"]
        statuses = {row["body"]: row["error_code"] for row in await rows(database, "messages")}
        assert statuses == {"": "lost", "Hello": None}


def claimed(body: str, to: str) -> ClaimedSend:
    return ClaimedSend(
        message_id="0" * 32,
        provider="twilio",
        contact_address=f"whatsapp:{to}",
        own_address=OUR_NUMBER,
        body=body,
        attempt=1,
        first_attempt_at=now(),
        last_attempt_at=now(),
        lease_until=now(),
    )


async def test_a_backup_learns_what_happened_after_it(
    setup: Setup, system: System, other_database_url: str
) -> None:
    """A message that a backup holds as due is settled by the replay, and not sent again."""
    message = await system.sent("Hello", to=ADA)
    await system.quiet()
    acts = await journaled_acts(setup.client)
    replayed = await setup.replay("--since", EVER, "--kind", "act", into=other_database_url)
    assert replayed.code == 0, replayed.err
    async with open_database(other_database_url) as database:
        await clear(database)
        # The backup was made before the first attempt.
        backup = SqlActRestorer(database, now)
        await backup.restore([act for act in acts if not isinstance(act, Attempted | Ended)])
        async with database.write() as connection:
            await connection.exec_driver_sql("UPDATE outbox SET state = 'due', restored = false")
        await backup.restore([act for act in acts if isinstance(act, Attempted)])
        assert await outbox_states(database) == [("unknown", True)]
        await backup.restore(acts)
        assert await outbox_states(database) == []
        [row] = await rows(database, "messages")
        assert row["public_id"] == message.id
        assert row["provider_message_id"] is not None


async def test_what_a_backup_holds_as_unsent_is_doubted(setup: Setup, database_url: str) -> None:
    """A message that is due in a backup, and was sent after it, isn't sent again."""
    await SqlOutboxStore(setup.database, now, ANY_TIME).enqueue(new_message("Hello", to=ADA))
    replayed = await setup.replay("--since", EVER, "--backup", into=database_url)
    assert replayed.code == 0, replayed.err
    async with (
        open_sandbox() as first,
        open_sandbox() as second,
        twilio(first.base_url) as lost,
    ):
        await lost.send(claimed("Hello", ADA))
        assert await outbox_states(setup.database) == [("unknown", True)]
        async with sending(setup.database, first, second, NOBODY):
            await until_settled(setup.database)
        assert [one.body for one in first.state.messages.values()] == ["Hello"]


async def test_one_process_journals_for_all(setup: Setup) -> None:
    """Of two processes one brings acts to the journal, and the other once that one is gone."""
    clock = ManualClock()
    one, two = SqlActLog(setup.database, clock), SqlActLog(setup.database, clock)
    await SqlOutboxStore(setup.database, now, ANY_TIME).enqueue(new_message())
    assert await one.unjournaled(limit=10, lease_seconds=10)
    assert not await two.unjournaled(limit=10, lease_seconds=10)
    clock.forward(6)
    assert await one.unjournaled(limit=10, lease_seconds=10)
    clock.forward(6)
    assert not await two.unjournaled(limit=10, lease_seconds=10)
    clock.forward(6)
    acts = await two.unjournaled(limit=10, lease_seconds=10)
    assert [type(act).__name__ for act in acts] == ["Opened", "Queued"]
    assert not await one.unjournaled(limit=10, lease_seconds=10)
    await two.mark_journaled(acts)
    assert not await two.unjournaled(limit=10, lease_seconds=10)


async def test_acts_are_published_again_until_confirmed(setup: Setup) -> None:
    """What a process had no time to mark is published again, and stands in the journal once."""
    await SqlOutboxStore(setup.database, now, ANY_TIME).enqueue(new_message())
    log = SqlActLog(setup.database, now)
    publisher = act_publisher(setup.client, setup.database)
    assert await publisher.publish() == 2
    async with setup.database.write() as connection:
        await connection.exec_driver_sql("UPDATE message_events SET journaled = false")
        await connection.exec_driver_sql("DELETE FROM leases")
    assert len(await log.unjournaled(limit=10, lease_seconds=0)) == 1
    assert await act_publisher(setup.client, setup.database).publish() == 1
    kinds = [type(act).__name__ for act in await journaled_acts(setup.client)]
    assert kinds == ["Opened", "Queued"]
