"""What comes of a call, what callers who reached nobody are sent, and what recordings become."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.common.errors import UnavailableError
from services.messaging.domain.business_hours import BusinessHours
from services.messaging.domain.call import CallAction, CallOutcome, CallStatus, TurnState
from services.messaging.ports.speech import RecordingMissingError, Transcript
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.calls.missed import MissedCallReply
from services.messaging.usecases.calls.requests import Played, Recorded
from services.messaging.usecases.calls.retention import DeleteRecordings
from services.messaging.usecases.calls.settling import SettleCalls
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.send import SendMessage
from tests.support.calls import CALLED, CALLER, recording, report, seen
from tests.support.files import KnownFiles
from tests.support.sandbox import OUR_NUMBER
from tests.support.scripted import QUIET, SPEECH
from tests.support.sending import ANY_TIME, ManualClock, open_database, stored
from tests.support.turns import Line, open_line

TEMPLATE = "HX" + "0a" * 16
PERSON = "+97231234567"
CLOSED = BusinessHours.parse("Mon 09:00-10:00", ZoneInfo("UTC"))


@asynccontextmanager
async def replying(
    url: str, message: str, *, policy: SendPolicy = ANY_TIME
) -> AsyncIterator[tuple[MissedCallReply, Database, ManualClock]]:
    """What writes to callers, the database in which its messages are, and its clock."""
    clock = ManualClock(seen().at)
    async with open_database(url) as database:
        send = SendMessage(
            SqlOutboxStore(database, clock, policy),
            own_address=OUR_NUMBER,
            provider="twilio",
            on_queued=lambda: None,
            files=KnownFiles(),
        )
        yield MissedCallReply(send, message), database, clock


async def outcome(line: Line, call_id: str = "CA1") -> CallOutcome | None:
    return (await line.store.call(call_id)).outcome


async def test_an_answered_call(database_url: str) -> None:
    """A call in which a question was answered is answered, and nothing is sent."""
    async with (
        replying(database_url, "Sorry!") as (missed, database, clock),
        open_line(database_url, missed=missed, clock=clock) as line,
    ):
        await line.receive.seen(seen())
        await line.says()
        await line.over()
        await line.hangs_up()
        assert await outcome(line) is CallOutcome.ANSWERED
        assert await stored(database) == []


async def test_a_missed_call_is_written_to_once(database_url: str) -> None:
    """A caller who hung up before an answer gets one message, however often we are told."""
    async with (
        replying(database_url, "Sorry we missed you!") as (missed, database, clock),
        open_line(database_url, missed=missed, clock=clock) as line,
        open_line(database_url, missed=missed, like=line) as other,
    ):
        await line.receive.seen(seen())
        for _ in range(2):
            await line.hangs_up()
            await other.hangs_up()
        assert await outcome(line) is CallOutcome.MISSED
        [message] = await stored(database)
        assert message.body == "Sorry we missed you!"
        assert message.request_id == "missed-call:CA1"


async def test_a_template_is_sent_as_one(sqlite_url: str) -> None:
    """A ContentSid is sent as a template: outside the 24 hours nothing else may be."""
    async with (
        replying(sqlite_url, TEMPLATE, policy=SendPolicy()) as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock) as line,
    ):
        await line.hangs_up()
        [message] = await stored(database)
        assert message.template["id"] == TEMPLATE


async def test_the_rules_of_sending_hold(sqlite_url: str) -> None:
    """A text to somebody who hasn't written to us is refused, which is no error of the call."""
    async with (
        replying(sqlite_url, "Sorry!", policy=SendPolicy()) as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock) as line,
    ):
        await line.hangs_up()
        assert await outcome(line) is CallOutcome.MISSED
        assert await stored(database) == []


@pytest.mark.parametrize(
    "caller",
    ["", "anonymous", "+266696687", "+7378742833", "+86282452253", "sip:a@example.com", "+1234"],
)
async def test_a_caller_without_a_number(sqlite_url: str, caller: str) -> None:
    """Nobody can be written to whose number is withheld, or is none; that is no error either."""
    async with (
        replying(sqlite_url, "Sorry!") as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock) as line,
    ):
        ended = report(CallStatus.NO_ANSWER)
        call = replace(ended.call, caller=caller, called=CALLED)
        await line.receive.report(replace(ended, call=call))
        assert await outcome(line) is CallOutcome.MISSED
        assert await stored(database) == []


async def test_a_message_left_after_the_end_was_told(database_url: str) -> None:
    """Status and recording come in any order: a voicemail is one, and its caller is written to."""
    for call_id, late in (("CA1", True), ("CA2", False)):
        async with (
            replying(database_url, "We'll call back.") as (missed, database, clock),
            open_line(database_url, missed=missed, clock=clock) as line,
        ):
            if late:
                await line.hangs_up(call_id)
            await line.says(call_id=call_id, voicemail=True)
            await line.over(call_id=call_id)
            if not late:
                await line.hangs_up(call_id)
            assert await outcome(line, call_id) is CallOutcome.VOICEMAIL
            sent = [row.request_id for row in await stored(database)]
            assert sent.count(f"missed-call:{call_id}") == 1


@pytest.mark.parametrize("said", ["words", "silence", "nothing"])
@pytest.mark.parametrize("answered", [True, False])
async def test_a_hang_up_tells_two_things_in_any_order(
    database_url: str, said: str, answered: bool
) -> None:
    """Who hangs up over a message ends it and the call: what came of it depends on no order.

    Nor does it on when the message was found to be silent, or not to be there. One message is sent
    whenever the caller was led to voicemail.
    """
    wanted = CallOutcome.ANSWERED if answered else CallOutcome.MISSED
    wanted = CallOutcome.VOICEMAIL if said == "words" else wanted
    orders = ["message work end", "message end work", "end message work", "message both"]
    if said == "nothing":
        orders = ["message gone end", "message end gone", "end message gone", "end gone message"]
    files: dict[str, bytes | Exception] = {
        "words": SPEECH,
        "silence": QUIET,
        "nothing": RecordingMissingError(),
    }
    async with (
        replying(database_url, "Sorry!") as (missed, database, clock),
        open_line(database_url, missed=missed, clock=clock) as line,
    ):
        for call_id in orders:
            if answered:
                await line.says(call_id=call_id)
                await line.over(call_id=call_id)
            left: dict[str, Any] = {
                "call_id": call_id,
                "voicemail": True,
                "recording_id": f"RE-{call_id}",
            }
            line.recordings.files[f"RE-{call_id}"] = files[said]
            for event in call_id.split():
                match event:
                    case "message":
                        line.recordings.gate.shut()
                        await line.says(2, digits="hangup", **left)
                    case "gone":
                        await line.says(2, absent=True, **left)
                    case "end":
                        await line.hangs_up(call_id)
                    case "work":
                        line.recordings.gate.open.set()
                        await line.over(2, call_id)
                    case "both":
                        line.recordings.gate.open.set()
                        await asyncio.gather(line.hangs_up(call_id), line.over(2, call_id))
            line.recordings.gate.open.set()
            assert await outcome(line, call_id) is wanted, call_id
            assert ((await line.turn(2, call_id)).state is TurnState.SILENT) == (said != "words")
        sent = [row.request_id for row in await stored(database)]
        assert sorted(sent) == sorted(f"missed-call:{call_id}" for call_id in orders)


async def test_other_outcomes(sqlite_url: str) -> None:
    """Silence is a missed call, so is one that nobody took over; one outside hours is closed."""
    async with open_line(sqlite_url) as line:
        line.recordings.files["RE-CA1-1"] = QUIET
        await line.says()
        await line.over()
        await line.hangs_up()
        assert await outcome(line) is CallOutcome.MISSED
        line.talker.pieces = ["One moment.", CallAction.TRANSFER]
        for call_id, answered in (("CA2", False), ("CA3", True)):
            await line.says(call_id=call_id)
            await line.over(call_id=call_id)
            await line.receive.dialed(seen(call_id), 1, answered=answered)
            await line.hangs_up(call_id)
        assert await outcome(line, "CA2") is CallOutcome.MISSED
        assert await outcome(line, "CA3") is CallOutcome.TRANSFERRED
        assert (await line.turn(1, "CA3")).played == 1
    async with open_line(sqlite_url, hours=CLOSED) as line:
        await line.receive.seen(seen("CA4"))
        await line.hangs_up("CA4")
        assert await outcome(line, "CA4") is CallOutcome.CLOSED


@pytest.mark.parametrize("key", [True, False], ids=["by a key", "by the assistant"])
@pytest.mark.parametrize("end_first", [True, False])
@pytest.mark.parametrize("answered", [True, False])
async def test_who_was_put_through_was_not_missed(
    sqlite_url: str, key: bool, end_first: bool, answered: bool
) -> None:
    """Whether a caller reached a person is known once we are told, before or after the end."""
    async with (
        replying(sqlite_url, "Sorry!") as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock, transfer_to=PERSON) as line,
    ):
        line.talker.pieces = ["One moment.", CallAction.TRANSFER]
        await line.says(digits="0" if key else "")
        await line.over()
        if end_first:
            await line.hangs_up()
            assert await stored(database) == []
        for _ in range(2):
            await line.receive.dialed(seen(), 1, answered=answered)
        await line.hangs_up()
        wanted = CallOutcome.TRANSFERRED if answered else CallOutcome.MISSED
        assert await outcome(line) is wanted
        assert len(await stored(database)) == (not answered)


async def test_who_hung_up_before_being_put_through(database_url: str) -> None:
    """Nobody tells of a person who was never called: after a while the call counts as missed."""
    async with (
        replying(database_url, "Sorry!") as (missed, database, clock),
        open_line(database_url, missed=missed, clock=clock, transfer_to=PERSON) as line,
    ):
        line.talker.pieces = ["One moment.", CallAction.TRANSFER]
        await line.says()
        await line.over()
        await line.hangs_up()
        work = SettleCalls(line.store, line.receive, clock=clock, patience=timedelta(minutes=1))
        await work.settle()
        assert await outcome(line) is None
        clock.forward(120)
        for _ in range(2):
            await work.settle()
        assert await outcome(line) is CallOutcome.MISSED
        assert len(await stored(database)) == 1
        # What is told after all holds.
        await line.receive.dialed(seen(), 1, answered=True)
        assert await outcome(line) is CallOutcome.TRANSFERRED


async def test_a_message_that_could_not_be_asked_for_is_asked_for_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call counts as missed only once its caller's message is stored."""

    async def away(*_: object) -> None:
        raise UnavailableError("the database is away")

    async with (
        replying(database_url, "Sorry!") as (missed, database, clock),
        open_line(database_url, missed=missed, clock=clock, transfer_to=PERSON) as line,
    ):
        line.talker.pieces = ["One moment.", CallAction.TRANSFER]
        await line.says()
        await line.over()
        await line.hangs_up()
        clock.forward(180)
        work = SettleCalls(line.store, line.receive, clock=clock)
        with monkeypatch.context() as patched:
            patched.setattr(MissedCallReply, "__call__", away)
            await work.settle()
        await work.settle()
        assert await outcome(line) is CallOutcome.MISSED
        assert len(await stored(database)) == 1


async def test_where_nobody_can_be_put_through_a_transfer_is_missed(sqlite_url: str) -> None:
    """A caller who pressed a key for nobody and hung up has reached nobody."""
    async with (
        replying(sqlite_url, "Sorry!") as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock) as line,
    ):
        await line.says(digits="0")
        await line.over()
        await line.hangs_up()
        assert await outcome(line) is CallOutcome.MISSED
        assert len(await stored(database)) == 1


async def test_calls_of_long_ago_are_not_written_to(sqlite_url: str) -> None:
    """When the journal is replayed, or was held up for hours, nobody gets a message about it."""
    async with (
        replying(sqlite_url, "Sorry!") as (missed, database, clock),
        open_line(sqlite_url, missed=missed, clock=clock) as line,
    ):
        clock.forward(6 * 3600)
        await line.receive.report(report(CallStatus.COMPLETED))
        assert await outcome(line) is CallOutcome.MISSED
        assert await stored(database) == []


async def test_recordings_are_deleted_once_understood(database_url: str) -> None:
    """Where recordings aren't kept, each is deleted at the provider once its turn is over.

    One that can't be deleted is tried again and holds up no other; a message that nobody could
    transcribe is kept, for it is all there is.
    """
    async with open_line(database_url) as line:
        line.transcriber.answers = [
            Transcript("Hello?", "en"),
            Transcript("Hello?", "en"),
            UnavailableError("down"),
        ]
        await line.says(1)
        await line.over(1)
        await line.says(2)
        await line.over(2)
        kept = replace(recording(3, voicemail=True), heard_at=seen().at - timedelta(days=2))
        await line.receive.recorded(kept)
        await line.over(3)
        line.recordings.deleting_fails = UnavailableError("not now")
        line.recordings.undeletable = {"RE-CA1-1"}
        work = DeleteRecordings(line.store, line.recordings)
        assert not await work.delete()
        assert line.recordings.deleted == ["RE-CA1-2"]
        line.recordings.undeletable = set()
        await work.delete()
        await work.delete()
        assert line.recordings.deleted == ["RE-CA1-2", "RE-CA1-1"]
        left = [(await line.turn(number)).recording_id for number in (1, 2, 3)]
        assert left == [None, None, "RE-CA1-3"]
        # Its script doesn't depend on it.
        assert await line.ask(Recorded(1)) == await line.ask(Played(1, 0))


async def test_events_without_their_call(sqlite_url: str) -> None:
    """What is told of a call that is unknown makes it known: nothing is lost or refused."""
    async with open_line(sqlite_url) as line:
        await line.receive.played(seen("CA1"), 1, 2)
        await line.receive.silent(seen("CA2"), 1)
        await line.receive.dialed(seen("CA3"), 1, answered=True)
        await line.receive.report(report(CallStatus.RINGING, "CA4"))
        await line.receive.recorded(recording(2, "CA5", absent=True))
        for call_id in ("CA1", "CA2", "CA3", "CA4", "CA5"):
            assert (await line.store.call(call_id)).caller == CALLER
