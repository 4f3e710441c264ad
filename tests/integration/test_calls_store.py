"""What the store of calls promises, on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from services.common.errors import NotFoundError
from services.messaging.domain.call import (
    AnswerPart,
    CallAction,
    CallEvent,
    CallOutcome,
    CallStatus,
    TurnState,
    TurnTimings,
)
from services.messaging.ports.calls import CallFilter, ClaimedTurn, TurnStanding
from services.messaging.store.call_models import CallEventRow
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from tests.support.calls import CALLED, CALLER, at, recording, report, seen
from tests.support.sending import ManualClock

LEASE = timedelta(seconds=30)
Changes = list[str]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def changes() -> Changes:
    return []


@pytest.fixture
def store(database: Database, clock: ManualClock, changes: Changes) -> SqlCallStore:
    return SqlCallStore(database, clock, on_change=changes.append)


async def claimed(store: SqlCallStore, call_id: str = "CA1", number: int = 1) -> ClaimedTurn:
    turn = await store.claim_turn(call_id, number, lease=LEASE)
    assert turn is not None
    return turn


async def test_a_whole_call(store: SqlCallStore) -> None:
    """What was told of a call and done for it is what one reads of it."""
    await store.seen(seen())
    await store.recorded(recording(seconds=10, duration=3, digits="1"))
    turn = await claimed(store)
    assert (turn.recording_id, turn.attempt, turn.heard_at) == ("RE-CA1-1", 1, at(10))
    assert turn.provider == "twilio"
    assert await store.transcribed(turn, "What time is it?", "en-US")
    assert await store.add_part(turn, AnswerPart("It is noon.", "a" * 64))
    assert await store.add_part(turn, AnswerPart("Anything else?", None))
    timings = TurnTimings(
        fetch=timedelta(milliseconds=20),
        transcribe=timedelta(milliseconds=30),
        first_sentence=timedelta(milliseconds=40),
        first_audio=timedelta(milliseconds=50),
        gap=timedelta(milliseconds=60),
    )
    assert await store.finish_turn(turn, TurnState.DONE, action=CallAction.HANG_UP, timings=timings)
    await store.played("CA1", 1, 1)
    await store.set_outcome("CA1", CallOutcome.ANSWERED)
    assert await store.report(report(CallStatus.COMPLETED, seconds=40, duration=39))

    call = await store.call("CA1")
    assert (call.caller, call.called, call.language) == (CALLER, CALLED, "en-US")
    assert (call.status, call.outcome) == (CallStatus.COMPLETED, CallOutcome.ANSWERED)
    assert (call.started_at, call.answered_at, call.ended_at) == (at(0), at(10), at(40))
    assert call.duration == timedelta(seconds=39)
    [spoken] = call.turns
    assert spoken.state is TurnState.DONE
    assert spoken.action is CallAction.HANG_UP
    assert spoken.transcript == "What time is it?"
    assert spoken.parts == (
        AnswerPart("It is noon.", "a" * 64),
        AnswerPart("Anything else?", None),
    )
    assert (spoken.played, spoken.digits, spoken.timings) == (1, "1", timings)
    assert (spoken.recording_id, spoken.recording_duration) == ("RE-CA1-1", timedelta(seconds=3))


async def test_unknown_call(store: SqlCallStore) -> None:
    """A call nobody has told of is not found, and what needs one does nothing."""
    with pytest.raises(NotFoundError):
        await store.call("CA404")
    assert await store.claim_turn("CA404", 1, lease=LEASE) is None
    assert not await store.give_up_turn("CA404", 1, "late")
    await store.played("CA404", 1, 1)
    await store.set_outcome("CA404", CallOutcome.MISSED)
    await store.recording_deleted("CA404", 1)
    with pytest.raises(NotFoundError):
        await store.call("CA404")


async def test_how_far_a_turn_is(store: SqlCallStore) -> None:
    """Who waits for a turn learns how far it is without reading the whole call."""
    assert await store.standing("CA1", 1) is None
    await store.recorded(recording(digits="#"))
    await store.recorded(recording(2))
    turn = await claimed(store)
    await store.add_part(turn, AnswerPart("One.", None))
    talking = TurnStanding(CallStatus.IN_PROGRESS, TurnState.WORKING, "#", 1)
    assert await store.standing("CA1", 1) == talking
    await store.finish_turn(turn, TurnState.DONE)
    await store.report(report(CallStatus.COMPLETED, seconds=9))
    over = TurnStanding(CallStatus.COMPLETED, TurnState.DONE, "#", 1)
    assert await store.standing("CA1", 1) == over
    assert await store.standing("CA1", 3) is None


async def test_who_gets_further_has_heard_the_answer(store: SqlCallStore) -> None:
    """What follows an answer shows that all of it was played; of one given up it shows nothing."""
    for number in (1, 2, 3):
        await store.recorded(recording(number))
        turn = await claimed(store, number=number)
        await store.add_part(turn, AnswerPart("One.", None))
        await store.add_part(turn, AnswerPart("Two.", None))
        if number == 2:
            await store.played("CA1", 2, 1)
            await store.give_up_turn("CA1", 2, "too long")
        else:
            await store.finish_turn(turn, TurnState.DONE)
    assert [turn.played for turn in (await store.call("CA1")).turns] == [2, 1, 0]
    await store.heard_out("CA1", before=4)
    assert [turn.played for turn in (await store.call("CA1")).turns] == [2, 1, 2]
    await store.heard_out("CA404", before=2)


async def test_only_the_end_is_reported_as_the_end(store: SqlCallStore) -> None:
    """Exactly one report ends a call, and says so again when it is delivered again."""
    assert not await store.report(report(CallStatus.IN_PROGRESS))
    assert await store.report(report(CallStatus.NO_ANSWER, seconds=5))
    assert not await store.report(report(CallStatus.COMPLETED, seconds=6))
    assert not await store.report(report(CallStatus.RINGING, seconds=7))
    assert await store.report(report(CallStatus.NO_ANSWER, seconds=8))
    assert (await store.call("CA1")).ended_at == at(5)


async def test_a_turn_has_one_owner(store: SqlCallStore) -> None:
    """Of many who claim a turn at once, one gets it."""
    await store.recorded(recording())
    claims = await asyncio.gather(*(store.claim_turn("CA1", 1, lease=LEASE) for _ in range(8)))
    assert sum(claim is not None for claim in claims) == 1


async def test_a_lost_lease_ends_the_claim(store: SqlCallStore, clock: ManualClock) -> None:
    """When a lease has run out another may take over, and the first owner changes nothing more."""
    await store.recorded(recording())
    first = await claimed(store)
    assert await store.unfinished(limit=5) == []
    clock.forward(LEASE.total_seconds())
    assert await store.unfinished(limit=5) == [("CA1", 1)]
    second = await claimed(store)
    assert second.attempt == 2
    assert not await store.transcribed(first, "x", "en-US")
    assert not await store.add_part(first, AnswerPart("x", None))
    assert not await store.renew(first, lease=LEASE)
    assert not await store.finish_turn(first, TurnState.DONE)
    await store.release_turn(first, retry_at=clock.time)
    assert await store.add_part(second, AnswerPart("A whole one.", None))
    assert (await store.call("CA1")).turns[0].parts == (AnswerPart("A whole one.", None),)


async def test_a_renewed_lease_goes_on(store: SqlCallStore, clock: ManualClock) -> None:
    """Whoever renews a claim in time keeps it, and what was claimed anew isn't renewed."""
    await store.recorded(recording())
    turn = await claimed(store)
    for _ in range(3):
        clock.forward(LEASE.total_seconds() - 1)
        assert await store.renew(turn, lease=LEASE)
        assert await store.claim_turn("CA1", 1, lease=LEASE) is None
        assert await store.unfinished(limit=5) == []
    assert await store.finish_turn(turn, TurnState.DONE)
    assert not await store.renew(turn, lease=LEASE)


async def test_parts_that_were_made_are_kept(store: SqlCallStore, clock: ManualClock) -> None:
    """Who takes a turn over finds what an earlier owner made: the caller may be hearing it."""
    await store.recorded(recording())
    first = await claimed(store)
    for text in ("One.", "Two."):
        await store.add_part(first, AnswerPart(text, None))
    clock.forward(LEASE.total_seconds())
    second = await claimed(store)
    await store.add_part(second, AnswerPart("Three.", None))
    parts = (await store.call("CA1")).turns[0].parts
    assert [one.text for one in parts] == ["One.", "Two.", "Three."]


async def test_a_released_turn_waits_for_its_time(store: SqlCallStore, clock: ManualClock) -> None:
    """A turn that was given back is free from then on and no earlier."""
    await store.recorded(recording(voicemail=True))
    turn = await claimed(store)
    await store.release_turn(turn, retry_at=clock.time + timedelta(seconds=60))
    assert await store.claim_turn("CA1", 1, lease=LEASE) is None
    assert await store.unfinished(limit=5) == []
    clock.forward(60)
    assert await store.unfinished(limit=5) == [("CA1", 1)]
    assert (await claimed(store)).attempt == 2


async def test_a_final_turn_stays_as_it_is(store: SqlCallStore) -> None:
    """Nothing is worked on or added once a turn is final, whatever is told again."""
    await store.recorded(recording(duration=2))
    turn = await claimed(store)
    assert await store.finish_turn(turn, TurnState.FAILED, problem="no words\0")
    assert not await store.finish_turn(turn, TurnState.DONE)
    assert not await store.add_part(turn, AnswerPart("x", None))
    assert not await store.give_up_turn("CA1", 1, "late")
    await store.recording_deleted("CA1", 1)
    await store.recorded(recording(duration=2))
    await store.silent(seen(), 1)
    assert await store.claim_turn("CA1", 1, lease=LEASE) is None
    assert await store.unfinished(limit=5) == []
    [after] = (await store.call("CA1")).turns
    assert (after.state, after.problem) == (TurnState.FAILED, "no words")
    assert after.recording_id is None


async def test_a_turn_is_given_up_whoever_works_on_it(store: SqlCallStore) -> None:
    """A turn the caller doesn't wait for is failed, and its owner learns it."""
    await store.recorded(recording())
    turn = await claimed(store)
    assert await store.give_up_turn("CA1", 1, "took too long")
    assert not await store.give_up_turn("CA1", 1, "took too long")
    assert not await store.add_part(turn, AnswerPart("Late.", None))
    assert (await store.call("CA1")).turns[0].state is TurnState.FAILED


async def test_the_first_recording_of_a_turn_holds(store: SqlCallStore) -> None:
    """A second recording of a turn with another id changes nothing."""
    await store.recorded(recording(recording_id="REa"))
    await store.recorded(recording(recording_id="REb", digits="9", absent=True))
    [turn] = (await store.call("CA1")).turns
    assert (turn.recording_id, turn.digits, turn.state) == ("REa", "", TurnState.WORKING)


async def test_the_caller_is_learned_later(store: SqlCallStore) -> None:
    """An event that names no numbers stores the call; one that does fills them in."""
    await store.recorded(recording(caller=""))
    assert (await store.call("CA1")).caller == ""
    await store.seen(seen())
    call = await store.call("CA1")
    assert (call.caller, call.called) == (CALLER, CALLED)


@pytest.mark.parametrize(
    ("told", "held"),
    [
        ((CallOutcome.MISSED, CallOutcome.ANSWERED), CallOutcome.ANSWERED),
        ((CallOutcome.ANSWERED, CallOutcome.MISSED), CallOutcome.ANSWERED),
        ((CallOutcome.ANSWERED, CallOutcome.TRANSFERRED), CallOutcome.TRANSFERRED),
        ((CallOutcome.TRANSFERRED, CallOutcome.ANSWERED), CallOutcome.TRANSFERRED),
        ((CallOutcome.CLOSED, CallOutcome.VOICEMAIL), CallOutcome.VOICEMAIL),
        ((CallOutcome.ANSWERED, CallOutcome.VOICEMAIL), CallOutcome.VOICEMAIL),
        ((CallOutcome.VOICEMAIL, CallOutcome.ANSWERED), CallOutcome.VOICEMAIL),
    ],
)
async def test_the_better_outcome_holds(
    store: SqlCallStore, told: tuple[CallOutcome, ...], held: CallOutcome
) -> None:
    """Of several outcomes the one that ranks first holds, in whatever order they are noted."""
    await store.seen(seen())
    for outcome in told:
        await store.set_outcome("CA1", outcome)
    assert (await store.call("CA1")).outcome is held


async def test_recordings_to_delete(store: SqlCallStore) -> None:
    """Recordings of final turns are to be deleted, save those of voicemails that failed."""
    for number, (state, voicemail) in enumerate(
        [
            (TurnState.DONE, False),
            (TurnState.FAILED, False),
            (TurnState.FAILED, True),
            (TurnState.DONE, True),
        ],
        start=1,
    ):
        await store.recorded(recording(number, voicemail=voicemail))
        await store.finish_turn(await claimed(store, number=number), state)
    await store.recorded(recording(5))
    await store.silent(seen(), 6)
    due = [("CA1", number, f"RE-CA1-{number}") for number in (1, 2, 4)]
    assert await store.recordings_to_delete(limit=9) == due
    assert await store.recordings_to_delete(limit=1) == due[:1]
    await store.recording_deleted("CA1", 1)
    assert await store.recordings_to_delete(limit=9) == due[1:]
    assert [turn.recording_id for turn in (await store.call("CA1")).turns[:2]] == [
        None,
        "RE-CA1-2",
    ]


async def test_lists_of_calls(store: SqlCallStore) -> None:
    """Calls come newest first, page by page, by number, outcome and time."""
    for number in range(7):
        await store.seen(seen(f"CA{number}", seconds=number, caller=f"+9725000000{number % 2}"))
    await store.set_outcome("CA3", CallOutcome.VOICEMAIL)

    async def ids(question: CallFilter) -> list[str]:
        found: list[str] = []
        after = None
        while True:
            page = await store.calls(question, limit=2, after=after)
            found += [call.call_id for call in page.calls]
            after = page.next
            if after is None:
                return found

    assert await ids(CallFilter()) == [f"CA{number}" for number in range(6, -1, -1)]
    assert await ids(CallFilter(number="+97250000001")) == ["CA5", "CA3", "CA1"]
    assert await ids(CallFilter(number=CALLED)) == [f"CA{number}" for number in range(6, -1, -1)]
    assert await ids(CallFilter(number="+1")) == []
    assert await ids(CallFilter(outcome=CallOutcome.VOICEMAIL)) == ["CA3"]
    assert await ids(CallFilter(since=at(2), until=at(4))) == ["CA3", "CA2"]


async def test_pages_stand_still_while_calls_come(store: SqlCallStore) -> None:
    """A call that comes between two pages neither repeats nor hides one."""
    for number in range(4):
        await store.seen(seen(f"CA{number}", seconds=number))
    first = await store.calls(CallFilter(), limit=2, after=None)
    await store.seen(seen("CA9", seconds=9))
    second = await store.calls(CallFilter(), limit=2, after=first.next)
    assert [call.call_id for call in (*first.calls, *second.calls)] == ["CA3", "CA2", "CA1", "CA0"]


async def test_events_are_kept_once(store: SqlCallStore, database: Database) -> None:
    """Every event is kept under its key, as often as it may come, with its call."""
    events = [
        CallEvent("call:CA2", "call", seen("CA2"), {"From": CALLER}),
        CallEvent("call:CA1", "call", seen("CA1"), {"From": CALLER, "X": ["1", "2"]}),
        CallEvent("call:CA1", "call", seen("CA1"), {"From": CALLER}),
    ]
    await asyncio.gather(*(store.note(events[::step]) for step in (1, -1, 1, -1)))
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(CallEventRow)) == 2
    assert (await store.call("CA2")).started_at == at(0)


async def test_changes_are_announced(store: SqlCallStore, changes: Changes) -> None:
    """Who waits for a turn is told of each step of it, and not of what was known before."""

    def told() -> int:
        count = len(changes)
        assert set(changes) <= {"CA1"}
        changes.clear()
        return count

    await store.recorded(recording())
    assert told() == 1
    await store.recorded(recording())
    await store.seen(seen())
    assert told() == 0
    turn = await claimed(store)
    await store.add_part(turn, AnswerPart("One.", None))
    await store.finish_turn(turn, TurnState.DONE)
    assert told() == 2
    await store.played("CA1", 1, 1)
    assert told() == 0
    await store.report(report(CallStatus.COMPLETED, seconds=1))
    assert told() == 1
    await store.add_part(replace(turn, attempt=7), AnswerPart("x", None))
    assert told() == 0
