"""Turns whose process is stopped or killed: who has them then, and what the caller hears."""

import asyncio
import sys
from datetime import timedelta

from sqlalchemy import select

from services.messaging.domain.call import AnswerPart, TurnState
from services.messaging.domain.script import AfterPart, Play
from services.messaging.store.call_models import CallTurnRow
from services.messaging.usecases.calls.requests import Played, Recorded
from tests.support.calls import recording
from tests.support.scripted import audio_id
from tests.support.sending import open_database, until
from tests.support.turns import RealClock, open_line


async def test_a_stop_waits_for_answers_that_are_under_way(sqlite_url: str) -> None:
    """A process that is stopped finishes what a caller waits for: no vendor is asked again."""
    async with open_line(sqlite_url, work=False) as other:
        gate = other.transcriber.gate
        gate.shut()
        async with open_line(sqlite_url, like=other, drain=60) as stopped:
            await stopped.says()
            await gate.reached.wait()
            asyncio.get_running_loop().call_later(0.2, gate.open.set)
        assert (await other.turn()).state is TurnState.DONE
        assert other.asked == (1, 1, 1)


async def test_a_long_turn_stays_with_its_owner(sqlite_url: str) -> None:
    """Work that takes longer than a lease is not begun by anybody else."""
    async with open_database(sqlite_url) as database, open_line(sqlite_url, lease=1.5) as line:

        async def renewed() -> bool:
            async with database.read() as connection:
                until = await connection.scalar(select(CallTurnRow.lease_until))
            return until == line.clock() + timedelta(seconds=1.5)

        line.transcriber.gate.shut()
        await line.says()
        await line.transcriber.gate.reached.wait()
        for _ in range(3):
            line.clock.forward(1)
            await until(renewed)
        async with open_line(sqlite_url, like=line):
            line.transcriber.gate.open.set()
            assert (await line.over()).state is TurnState.DONE
        assert line.asked == (1, 1, 1)


async def test_a_killed_process_is_taken_over_while_the_caller_waits(sqlite_url: str) -> None:
    """When a process is killed in the middle of a turn, another answers in time: the caller hears
    that it takes a moment, and then the answer."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.answering_process", sqlite_url),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"transcribing\n"
    process.kill()
    await process.wait()
    async with open_line(sqlite_url, clock=RealClock()) as line:
        script = await line.ask(Recorded(1), hold=8)
        for _ in range(3):
            if isinstance(script[-1], AfterPart) and script[-1].part == 0:
                script = await line.ask(Played(1, 0), hold=8)
        answer = "We open at nine."
        assert script[0] == Play(audio_id(answer), answer, "en-US")
        assert line.asked == (1, 1, 1)


async def test_a_crash_is_taken_over(sqlite_url: str) -> None:
    """A turn whose owner is gone is taken over once its lease has ended, without a second vendor
    call for what is stored already."""
    async with open_line(sqlite_url, work=False) as gone:
        await gone.says()
        claim = await gone.store.claim_turn("CA1", 1, lease=timedelta(seconds=5))
        assert claim is not None
        assert await gone.store.transcribed(claim, "Are you there?", "en-US")
        gone.clock.forward(6)
        async with open_line(sqlite_url, like=gone) as line:
            turn = await line.over()
        assert turn.state is TurnState.DONE
        assert gone.talker.asked == [((), "Are you there?", "en-US")]
        assert gone.asked == (0, 0, 1)


async def test_a_crash_in_the_middle_of_an_answer(sqlite_url: str) -> None:
    """What a lost owner made may be playing: it stays, and the call goes on after it."""
    async with open_line(sqlite_url, work=False) as gone:
        await gone.says()
        claim = await gone.store.claim_turn("CA1", 1, lease=timedelta(seconds=5))
        assert claim is not None
        for text in ("One.", "Two."):
            await gone.store.add_part(claim, AnswerPart(text, audio_id(text)))
        await gone.receive.played(recording(1).call, 1, 1)
        gone.clock.forward(6)
        async with open_line(sqlite_url, like=gone) as line:
            turn = await line.over()
        assert turn.state is TurnState.DONE
        assert [part.text for part in turn.parts] == ["One.", "Two."]
        assert gone.asked == (0, 0, 0)


async def test_a_stop_gives_turns_back(sqlite_url: str) -> None:
    """A process that is stopped leaves its turn to another at once."""
    async with open_line(sqlite_url, lease=3600) as stopped:
        stopped.recordings.gate.shut()
        await stopped.says()
        await stopped.recordings.gate.reached.wait()
        pause = stopped.recordings.gate
    pause.open.set()
    async with open_line(sqlite_url, like=stopped) as line:
        assert (await line.over()).state is TurnState.DONE
