"""Messages that callers leave: transcribed, however long that takes, and not answered."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.call import CallOutcome, TurnState
from services.messaging.ports.speech import (
    RecordingMissingError,
    RecordingRefusedError,
    Transcript,
)
from tests.support.calls import at, recording
from tests.support.sending import until
from tests.support.turns import open_line


async def test_callers_come_before_what_was_left(sqlite_url: str) -> None:
    """However many messages wait for a slow vendor, a caller's question is worked on at once."""
    async with open_line(sqlite_url, work=False) as before:
        for number in range(6):
            await before.says(call_id=f"old-{number}", voicemail=True)
        before.recordings.gate.shut()
        async with open_line(sqlite_url, like=before, concurrency=4) as line:

            async def two() -> bool:
                return len(line.recordings.fetched) == 2

            await until(two)
            await line.says(call_id="CA1")

            async def asked() -> bool:
                return "RE-CA1-1" in line.recordings.fetched

            await until(asked)
            assert len(line.recordings.fetched) == 3
            line.recordings.gate.open.set()
            for number in range(6):
                await line.over(call_id=f"old-{number}")


async def test_a_message_is_transcribed_after_the_call(database_url: str) -> None:
    """A voicemail is stored, transcribed and not answered, also when the caller has gone."""
    async with open_line(database_url) as line:
        await line.hangs_up()
        await line.says(voicemail=True)
        turn = await line.over()
        assert (turn.state, turn.transcript) == (TurnState.DONE, "When do you open?")
        assert line.asked == (1, 1, 0)


async def test_a_message_is_tried_again(sqlite_url: str) -> None:
    """A voicemail outlasts vendors that are down, with growing pauses, and is then transcribed."""
    async with open_line(sqlite_url) as line:
        line.recordings.files["RE-CA1-1"] = RecordingMissingError()
        line.transcriber.answers = [UnavailableError("down"), Transcript("Call me back", "en")]
        await line.says(voicemail=True)
        for fetched, seconds in ((1, 16), (2, 31)):

            async def tried(times: int = fetched) -> bool:
                return len(line.recordings.fetched) == times

            await until(tried)

            async def released() -> bool:
                return not await line.store.unfinished(limit=1)

            await until(released)
            line.recordings.files.clear()
            line.clock.forward(seconds)
        turn = await line.over()
        assert (turn.state, turn.transcript) == (TurnState.DONE, "Call me back")
        assert line.asked == (3, 2, 0)


async def test_a_message_that_is_never_understood(sqlite_url: str) -> None:
    """After a day a voicemail without a transcript says why, and its recording is kept."""
    async with open_line(sqlite_url) as line:
        line.transcriber.answers = [UnavailableError("no credit")]
        line.clock.forward(90_000)
        await line.receive.recorded(replace(recording(1, voicemail=True), heard_at=at(0)))
        turn = await line.over()
        assert (turn.state, turn.problem) == (TurnState.FAILED, "no credit")
        assert await line.store.recordings_to_delete(limit=10) == []


@pytest.mark.parametrize(
    "refusal",
    [
        RecordingRefusedError("it is larger than 10 bytes"),
        b"RIFF no sound",
        InvalidInputError("recording", "the transcription refuses it"),
    ],
    ids=["recording", "file", "transcriber"],
)
async def test_a_refusal_is_no_silence(database_url: str, refusal: Exception | bytes) -> None:
    """A message that is refused stays one: it is kept, told of once, and understood once it can be.

    A wrong setting refuses every message there is.
    """
    async with open_line(database_url) as line:
        if isinstance(refusal, InvalidInputError):
            line.transcriber.answers = [refusal]
        else:
            line.recordings.files["RE-CA1-1"] = refusal
        with capture_logs() as logs:
            await line.says(voicemail=True)
            for fetched, seconds in ((1, 16), (2, 31)):

                async def released(times: int = fetched) -> bool:
                    return len(line.recordings.fetched) == times and not (
                        line.worker._running or await line.store.unfinished(limit=1)
                    )

                await until(released)
                line.clock.forward(seconds if fetched == 1 else 0)
        assert [one["log_level"] for one in logs].count("error") == 1
        await line.hangs_up()
        assert (await line.store.call("CA1")).outcome is CallOutcome.VOICEMAIL
        assert await line.store.recordings_to_delete(limit=10) == []
        line.recordings.files.clear()
        line.transcriber.answers = [Transcript("Call me back", "en")]
        line.clock.forward(31)
        turn = await line.over()
        assert (turn.state, turn.transcript) == (TurnState.DONE, "Call me back")


async def test_a_message_that_is_always_refused(sqlite_url: str) -> None:
    """After a day it has failed and says why; its recording is kept."""
    async with open_line(sqlite_url) as line:
        line.transcriber.answers = [InvalidInputError("recording", "is refused")]
        line.clock.forward(90_000)
        await line.receive.recorded(replace(recording(1, voicemail=True), heard_at=at(0)))
        turn = await line.over()
        assert turn.state is TurnState.FAILED
        assert "is refused" in (turn.problem or "")
        assert await line.store.recordings_to_delete(limit=10) == []
