"""Turns whose process is stopped or killed: who has them then, and what the caller hears."""

import asyncio
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from services.messaging.domain.call import TurnState
from services.messaging.domain.script import AfterPart, Play
from services.messaging.store.call_models import CallTurnRow
from services.messaging.usecases.calls.requests import Played, Recorded
from tests.support.sending import open_database, until
from tests.support.turns import Line, RealClock, audio_id, open_line


@pytest.fixture
def url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite database."""
    return f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'switchboard.db')}"


def vendors(line: Line) -> tuple[int, int, int]:
    """How often each was asked: recordings, transcriber, assistant."""
    asked = (line.recordings.fetched, line.transcriber.asked, line.talker.asked)
    return len(asked[0]), len(asked[1]), len(asked[2])


async def test_a_stop_waits_for_answers_that_are_under_way(url: str) -> None:
    """A process that is stopped finishes what a caller waits for: no vendor is asked again."""
    async with open_line(url, work=False) as other:
        gate = other.transcriber.gate
        gate.shut()
        async with open_line(url, like=other, drain=60) as stopped:
            await stopped.says()
            await gate.reached.wait()
            asyncio.get_running_loop().call_later(0.2, gate.open.set)
        assert (await other.turn()).state is TurnState.DONE
        assert vendors(other) == (1, 1, 1)


async def test_a_long_turn_stays_with_its_owner(url: str) -> None:
    """Work that takes longer than a lease is not begun by anybody else."""
    async with open_database(url) as database, open_line(url, lease=1.5) as line:

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
        async with open_line(url, like=line):
            line.transcriber.gate.open.set()
            assert (await line.over()).state is TurnState.DONE
        assert vendors(line) == (1, 1, 1)


async def test_a_killed_process_is_taken_over_while_the_caller_waits(url: str) -> None:
    """When a process is killed in the middle of a turn, another answers in time: the caller hears
    that it takes a moment, and then the answer."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.answering_process", url),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"transcribing\n"
    process.kill()
    await process.wait()
    async with open_line(url, clock=RealClock()) as line:
        script = await line.ask(Recorded(1), hold=8)
        for _ in range(3):
            if isinstance(script[-1], AfterPart) and script[-1].part == 0:
                script = await line.ask(Played(1, 0), hold=8)
        answer = "We open at nine."
        assert script[0] == Play(audio_id(answer), answer, "en-US")
        assert vendors(line) == (1, 1, 1)
