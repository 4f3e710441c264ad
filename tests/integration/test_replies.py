"""Automatic answers on both databases, written by the sandbox's model over a socket."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sandbox.faults import Fault, Faults
from sandbox.server import RunningSandbox
from services.common.tracing import new_traceparent
from services.messaging.assistant.openai_assistant import OpenAIAssistant
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import Author, Direction, Message
from services.messaging.ports.answering import ReplyTask
from services.messaging.ports.reading import MessageFilter
from services.messaging.ports.sending import NewMessage
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.reply import Replies
from tests.support.receiving import START, inbound, receive, rows
from tests.support.sending import ManualClock

LEASE = timedelta(seconds=60)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SqlReplyStore:
    return SqlReplyStore(database, clock)


async def write(database: Database, clock: ManualClock, *messages: InboundMessage) -> None:
    await receive(SqlIngestStore(database), clock=clock)(messages, [])


async def due(store: SqlReplyStore, max_answers: int = 60) -> list[ReplyTask]:
    claimed = await store.claim_replies(limit=10, lease=LEASE, context=20, max_answers=max_answers)
    return list(claimed)


def answer_to(task: ReplyTask, body: str = "Yes") -> NewMessage:
    return NewMessage(
        recipient=task.recipient,
        contact_address=task.contact_address,
        own_address=task.own_address,
        provider="twilio",
        author=Author.ASSISTANT,
        body=body,
    )


async def outbound(database: Database) -> list[Message]:
    page = await SqlMessageReader(database).messages(MessageFilter(), limit=100, after=None)
    return [one for one in page.messages if one.direction is Direction.OUTBOUND]


async def test_a_burst_gets_one_answer(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """Messages in quick succession are answered once, after a pause, knowing all of them."""
    await write(database, clock, inbound("SM1", seconds=0, body="Hi"))
    clock.forward(1)
    await write(database, clock, inbound("SM2", seconds=1, body="Is the flat free?"))
    clock.forward(1.5)
    assert await due(store) == []
    clock.forward(1)
    [task] = await due(store)
    assert [turn.body for turn in task.turns] == ["Hi", "Is the flat free?"]
    assert await store.answer(task, answer_to(task)) is not None
    clock.forward(120)
    assert await due(store) == []
    [sent] = await outbound(database)
    asked = await SqlMessageReader(database).message(sent.answers_message_id or "")
    assert asked is not None
    assert asked.body == "Is the flat free?"


async def test_whoever_writes_now_does_not_wait_for_a_backlog(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """While more wait than can be answered, those who have waited least are taken in turns with
    those who have waited longest."""
    for number in range(6):
        await write(database, clock, inbound(f"SM{number}", address=f"+1555000000{number}"))
        clock.forward(1)
    clock.forward(60)
    claimed = [
        task.recipient.value
        for _ in range(3)
        for task in await store.claim_replies(limit=2, lease=LEASE, context=1, max_answers=60)
    ]
    assert [sorted(claimed[i : i + 2]) for i in (0, 2, 4)] == [
        ["+15550000000", "+15550000001"],
        ["+15550000004", "+15550000005"],
        ["+15550000002", "+15550000003"],
    ]


async def test_an_edge_whose_clock_is_ahead_keeps_nobody_waiting(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """What seems to come from the future is answered as if it had come now."""
    await write(database, clock, inbound("SM1", seconds=3600))
    clock.forward(10)
    assert len(await due(store)) == 1


async def test_an_answer_belongs_to_the_request_that_it_answers(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """From the newest message of a burst to the send, through the database."""
    requests = [new_traceparent(), new_traceparent()]
    for number, request in enumerate(requests):
        message = replace(inbound(f"SM{number}", seconds=number), traceparent=request)
        await write(database, clock, message)
    clock.forward(10)
    [task] = await due(store)
    assert task.traceparent == requests[1]
    await store.answer(task, replace(answer_to(task), traceparent=task.traceparent))
    outbox = SqlOutboxStore(database, clock)
    [claimed] = await outbox.claim(limit=10, lease=LEASE)
    assert claimed.traceparent == requests[1]


async def test_what_comes_while_writing_is_answered_too(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """A message that comes while an answer is being written makes that answer be written anew."""
    await write(database, clock, inbound("SM1", body="Hi"))
    clock.forward(3)
    [first] = await due(store)
    await write(database, clock, inbound("SM2", seconds=3, body="And the price?"))
    assert await store.answer(first, answer_to(first)) is None
    clock.forward(3)
    [second] = await due(store)
    assert [turn.body for turn in second.turns] == ["Hi", "And the price?"]
    assert await store.answer(second, answer_to(second)) is not None
    assert len(await outbound(database)) == 1


async def test_an_endless_burst_is_answered_in_time(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """A contact who never stops writing gets an answer all the same, and one for the rest."""
    await write(database, clock, inbound("SM1", body="one"))
    clock.forward(9)
    await write(database, clock, inbound("SM2", seconds=9, body="two"))
    clock.forward(1.5)
    [task] = await due(store)
    await write(database, clock, inbound("SM3", seconds=10.5, body="three"))
    assert await store.answer(task, answer_to(task)) is not None
    [rest] = await due(store)
    assert rest.turns[-1].body == "three"


async def test_an_answer_is_stored_once(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """Two processes that wrote an answer to the same message store one."""
    await write(database, clock, inbound("SM1"))
    clock.forward(3)
    [first] = await due(store)
    clock.forward(LEASE.total_seconds() + 1)
    [second] = await due(store)
    stored = await asyncio.gather(
        store.answer(first, answer_to(first)), store.answer(second, answer_to(second))
    )
    assert len([one for one in stored if one is not None]) == 1
    assert len(await outbound(database)) == 1


@pytest.mark.parametrize("wrote_again", [False, True])
async def test_who_lost_its_lease_spoils_no_answer(
    database: Database, store: SqlReplyStore, clock: ManualClock, wrote_again: bool
) -> None:
    """A process that stalled neither ends nor gives out again what another one answers by now."""
    await write(database, clock, inbound("SM1"))
    clock.forward(3)
    [stalled] = await due(store)
    clock.forward(LEASE.total_seconds() + 1)
    if wrote_again:
        await write(database, clock, inbound("SM2", seconds=64))
        clock.forward(11)
    [task] = await due(store)
    await store.give_back(stalled, clock())
    assert await due(store) == []
    await store.drop(stalled)
    assert await due(store) == []
    if wrote_again:
        assert await store.answer(stalled, answer_to(stalled)) is None
        assert await due(store) == []
    assert await store.answer(task, answer_to(task)) is not None
    assert len(await outbound(database)) == 1


async def test_whoever_opts_out_meanwhile_gets_no_answer(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """An opt-out that comes while the answer is being written keeps it from being stored."""
    await write(database, clock, inbound("SM1"))
    clock.forward(3)
    [task] = await due(store)
    await write(database, clock, inbound("SM2", seconds=3, body="STOP"))
    assert await store.answer(task, answer_to(task)) is None
    clock.forward(120)
    assert await due(store) == []
    assert await outbound(database) == []


async def test_a_task_given_back_is_taken_again(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """A task given back comes again at its time, with its attempts counted."""
    await write(database, clock, inbound("SM1"))
    clock.forward(3)
    [task] = await due(store)
    await store.give_back(task, clock() + timedelta(seconds=10))
    assert await due(store) == []
    clock.forward(10)
    [again] = await due(store)
    assert (task.attempt, again.attempt) == (1, 2)


async def test_a_task_dropped_is_gone_until_the_next_message(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """What was left to a person is not answered any more; the contact's next message is."""
    await write(database, clock, inbound("SM1"))
    clock.forward(3)
    [task] = await due(store)
    await store.drop(task)
    clock.forward(120)
    assert await due(store) == []
    await write(database, clock, inbound("SM2", seconds=123))
    clock.forward(3)
    assert len(await due(store)) == 1


@pytest.mark.parametrize("meanwhile", [["STOP", "START"], ["And the price?"]])
async def test_answers_that_are_thrown_away_count(
    database: Database, clock: ManualClock, meanwhile: list[str]
) -> None:
    """Whoever makes one answer after the other be thrown away gets no more of them written than
    anybody else, whichever process takes them, and as many again an hour later."""
    count = itertools.count()

    async def says(*bodies: str) -> None:
        for body in bodies:
            seconds = (clock() - START).total_seconds()
            await write(database, clock, inbound(f"SM{next(count)}", seconds=seconds, body=body))
            clock.forward(0.1)

    for _ in range(2):
        asked = 0
        for _ in range(5):
            await says("A question")
            clock.forward(3)
            store = SqlReplyStore(database, clock)
            [task] = await due(store, max_answers=2)
            if task.too_many:
                await store.drop(task)
                continue
            asked += 1
            await says(*meanwhile)
            assert await store.answer(task, answer_to(task)) is None
        assert asked == 2
        clock.forward(3600)
        # What was written last is asked about only now.
        for task in await due(store):
            await store.drop(task)
        clock.forward(3600)


async def test_trying_again_is_the_same_question(
    database: Database, store: SqlReplyStore, clock: ManualClock
) -> None:
    """A model that fails uses nothing up, and each conversation has a count of its own."""
    await write(database, clock, inbound("SM1"), inbound("SM2", address="+15550000001"))
    for _ in range(4):
        clock.forward(3)
        tasks = await due(store, max_answers=1)
        assert [task.too_many for task in tasks] == [False, False]
        for task in tasks:
            await store.give_back(task, clock())


@asynccontextmanager
async def answering(
    sandbox: RunningSandbox, store: SqlReplyStore, clock: ManualClock, **options: Any
) -> AsyncIterator[asyncio.Event]:
    """The use case at work; the event is set when there is something to send."""
    assistant = OpenAIAssistant(
        api_key="openai-key",
        base_url=f"{sandbox.base_url}/openai/v1",
        model="gpt-6-luna",
        prompt="You answer for Example Estates.",
        timeout_seconds=30,
    )
    queued = asyncio.Event()
    replies = Replies(
        store,
        assistant,
        provider="twilio",
        clock=clock,
        on_queued=queued.set,
        context_messages=20,
        lease=LEASE,
        poll_seconds=0.02,
        **options,
    )
    task = asyncio.create_task(replies.run())
    try:
        yield queued
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await assistant.close()


async def test_the_assistant_answers(
    database: Database, store: SqlReplyStore, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    """A contact's question becomes a queued answer that knows the conversation."""
    await write(database, clock, inbound("SM1", body="Is the flat in Haifa still free?"))
    clock.forward(3)
    async with answering(sandbox, store, clock) as queued, asyncio.timeout(60):
        await queued.wait()
    [sent] = await outbound(database)
    assert "Haifa" in sent.body
    assert sent.author is Author.ASSISTANT


async def test_an_answer_survives_trouble_of_the_vendor(
    database: Database, store: SqlReplyStore, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    """While the model fails the question waits, and is answered when the model is back."""
    await write(database, clock, inbound("SM1", body="Hello"))
    clock.forward(3)
    sandbox.set_faults(Faults(openai_error_500=Fault(times=2)))
    async with answering(sandbox, store, clock) as queued, asyncio.timeout(60):
        while not queued.is_set():
            await asyncio.sleep(0.05)
            clock.forward(5)
    assert len(await outbound(database)) == 1


async def test_nobody_gets_more_answers_than_configured(
    database: Database, store: SqlReplyStore, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    """Beyond that the model isn't asked, and the messages wait for a person."""
    async with answering(sandbox, store, clock, max_answers=2), asyncio.timeout(60):
        for number in range(4):
            seconds = (clock() - START).total_seconds()
            await write(database, clock, inbound(f"SM{number}", seconds=seconds))
            clock.forward(3)
            while await rows(database, "pending_replies"):  # noqa: ASYNC110 - A table has no event.
                await asyncio.sleep(0.02)
    assert len(sandbox.state.openai_requests) == 2
    assert len(await outbound(database)) == 2


async def test_after_many_failures_a_person_takes_over(
    database: Database, store: SqlReplyStore, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    """A question that the model never answers is left alone in the end, and still there."""
    await write(database, clock, inbound("SM1", body="Hello"))
    sandbox.set_faults(Faults(openai_error_500=Fault(times=3)))
    async with answering(sandbox, store, clock, max_attempts=3) as queued, asyncio.timeout(60):
        while waiting := await rows(database, "pending_replies"):
            # A clock that ran faster than the work would end its lease.
            if waiting[0]["lease_until"] is None:
                clock.forward(5)
            await asyncio.sleep(0.02)
        for _ in range(10):
            clock.forward(60)
            await asyncio.sleep(0.02)
        assert not queued.is_set()
    assert len(sandbox.state.openai_requests) == 3
    assert await due(store) == []
    page = await SqlMessageReader(database).messages(MessageFilter(), limit=10, after=None)
    assert [one.body for one in page.messages] == ["Hello"]


async def test_stopping_gives_back_what_is_half_done(
    database: Database, store: SqlReplyStore, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    """An answer cut short by a stop is taken up again at once, without waiting for a lease."""
    await write(database, clock, inbound("SM1", body="Hello"))
    clock.forward(3)
    sandbox.set_faults(Faults(openai_hang=Fault()))
    async with answering(sandbox, store, clock), asyncio.timeout(60):
        while not sandbox.state.openai_requests:  # noqa: ASYNC110 - The sandbox has no event.
            await asyncio.sleep(0.02)
    assert len(await due(store)) == 1
