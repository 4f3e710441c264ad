"""Turns of calls: each worked on once, by one owner, until it is answered or nobody listens."""

from datetime import timedelta

import pytest

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.call import AnswerPart, CallAction, TurnState
from services.messaging.ports.speech import (
    Exchange,
    RecordingMissingError,
    RecordingRefusedError,
    Transcript,
)
from services.messaging.usecases.calls.requests import Played, Recorded
from tests.support.calls import recording
from tests.support.scripted import QUIET, Gate, audio_id
from tests.support.sending import until
from tests.support.turns import open_line


def shut() -> Gate:
    gate = Gate()
    gate.shut()
    return gate


async def test_a_turn_is_answered(database_url: str) -> None:
    """What a caller says is fetched, transcribed, answered and rendered, each once."""
    async with open_line(database_url) as line:
        await line.says()
        turn = await line.over()
        assert turn.state is TurnState.DONE
        assert turn.transcript == "When do you open?"
        assert turn.language == "en-US"
        texts = ["We open at nine.", "Bye."]
        assert turn.parts == tuple(AnswerPart(text, audio_id(text)) for text in texts)
        assert (turn.action, turn.problem) == (CallAction.LISTEN, None)
        assert line.asked == (1, 1, 1)
        assert line.talker.asked == [((), "When do you open?", "en-US")]
        assert line.counted("switchboard_call_turns_total", outcome="done") == 1


async def test_stages_are_measured(sqlite_url: str) -> None:
    """Each stage has its own time, and the gap is what the caller waits in all."""
    async with open_line(sqlite_url) as line:
        line.clock.forward(1)
        line.recordings.gate.shut()
        line.transcriber.gate.shut()
        sentence, sound = shut(), shut()
        line.talker.pieces = [sentence, "We open at nine."]
        line.voice.gates["We open at nine."] = sound
        await line.receive.recorded(recording(1, seconds=0.5))
        gates = (line.recordings.gate, line.transcriber.gate, sentence, sound)
        for seconds, gate in zip((2, 3, 4, 5), gates, strict=True):
            await gate.reached.wait()
            line.clock.forward(seconds)
            gate.open.set()
        timings = (await line.over()).timings
        assert (timings.fetch, timings.transcribe) == (timedelta(seconds=2), timedelta(seconds=3))
        assert timings.first_sentence == timedelta(seconds=4)
        assert timings.first_audio == timedelta(seconds=5)
        assert timings.gap == timedelta(seconds=14.5)
        for stage, total in (("fetch", 2), ("first_audio", 5), ("gap", 14.5)):
            name = "switchboard_call_stage_seconds_sum"
            assert line.counted(name, stage=stage) == total


async def test_both_webhooks_and_two_replicas_ask_no_vendor_twice(database_url: str) -> None:
    """However often a recording is told of, and to whomever, every vendor is asked once."""
    async with open_line(database_url) as one, open_line(database_url, like=one) as other:
        one.recordings.gate.shut()
        for line in (one, other, one):
            await line.says()
            line.worker.wake("CA1", 1)
        await one.recordings.gate.reached.wait()
        await other.says()
        one.recordings.gate.open.set()
        turn = await one.over()
        await other.says()
        other.worker.wake("CA1", 1)
        script = await other.ask(Recorded(1))
        assert await one.ask(Recorded(1)) == script
        assert turn.state is TurnState.DONE
        assert one.asked == (1, 1, 1)
        assert one.voice.asked == ["We open at nine.", "Bye."]


async def test_a_second_recording_of_a_turn_is_left(sqlite_url: str) -> None:
    """Of two recordings of one turn the first is answered, and both requests get its script."""
    async with open_line(sqlite_url) as line:
        await line.says()
        first = await line.ask(Recorded(1))
        await line.over()
        await line.says(recording_id="RE-other")
        assert first[0] in await line.ask(Recorded(1))
        assert line.recordings.fetched == ["RE-CA1-1"]


@pytest.mark.parametrize(
    ("file", "transcript", "asked"),
    [
        (RecordingMissingError(), None, (1, 0, 0)),
        (RecordingRefusedError("it has 60 minutes"), None, (1, 0, 0)),
        (b"<html>no audio</html>", None, (1, 0, 0)),
        (b"", None, (1, 0, 0)),
        (QUIET, None, (1, 0, 0)),
        (None, Transcript("", None), (1, 1, 0)),
        (None, Transcript(" … ", "en"), (1, 1, 0)),
        (None, InvalidInputError("recording", "is too short"), (1, 1, 0)),
    ],
    ids=["missing", "refused", "page", "empty", "quiet", "no words", "dots", "invalid"],
)
async def test_nothing_to_answer_is_a_silence(
    sqlite_url: str,
    file: bytes | Exception | None,
    transcript: Transcript | Exception | None,
    asked: tuple[int, int, int],
) -> None:
    """What holds no words is a silent turn, and no vendor further on is asked."""
    async with open_line(sqlite_url) as line:
        if file is not None:
            line.recordings.files["RE-CA1-1"] = file
        if transcript is not None:
            line.transcriber.answers = [transcript]
        await line.says()
        turn = await line.over()
        assert turn.state is TurnState.SILENT
        assert turn.problem
        assert line.asked == asked


@pytest.mark.parametrize("stage", ["recording", "transcriber", "assistant", "unforeseen"])
async def test_a_vendor_that_is_down_fails_the_turn(sqlite_url: str, stage: str) -> None:
    """A turn without an answer is failed, says why, and isn't tried again: the caller waits."""
    async with open_line(sqlite_url) as line:
        down = UnavailableError(f"the {stage} is down")
        if stage == "recording":
            line.recordings.files["RE-CA1-1"] = down
        elif stage == "transcriber":
            line.transcriber.answers = [down]
        elif stage == "assistant":
            line.talker.pieces = [down]
        else:
            line.transcriber.answers = [KeyError("a bug")]
        await line.says()
        turn = await line.over()
        assert turn.state is TurnState.FAILED
        assert stage in (turn.problem or "")
        assert max(line.asked) == 1
        assert line.counted("switchboard_call_turns_total", outcome="failed") == 1


async def test_half_an_answer_is_an_answer(sqlite_url: str) -> None:
    """What was said before the assistant or the voice failed counts; the provider says the rest."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = ["One. Two. Three", UnavailableError("it broke off")]
        line.voice.failing = {"Two."}
        await line.says()
        turn = await line.over()
        expected = [AnswerPart("One.", audio_id("One.")), AnswerPart("Two.", None)]
        assert turn.state is TurnState.DONE
        assert turn.problem == "it broke off"
        assert [*turn.parts] == [*expected, AnswerPart("Three", None)]
        assert line.counted("switchboard_call_fallbacks_total", fallback="say") == 2


async def test_hanging_up_ends_all_work_at_once(database_url: str) -> None:
    """When the call ends in the middle of an answer, the assistant's request is closed."""
    async with open_line(database_url) as line:
        pause = shut()
        line.talker.pieces = ["One. Two", pause, "Three."]
        await line.says()
        await pause.reached.wait()
        await line.hangs_up()
        turn = await line.over()
        assert turn.state is TurnState.CANCELED
        assert line.talker.ended == 1
        assert line.counted("switchboard_call_turns_total", outcome="canceled") == 1


@pytest.mark.parametrize(
    ("digits", "state"), [("hangup", TurnState.CANCELED), ("5", TurnState.SILENT)]
)
async def test_what_ended_a_recording_is_told_later(
    sqlite_url: str, digits: str, state: TurnState
) -> None:
    """When a recording's second webhook tells that nobody waits for an answer, work on it ends."""
    async with open_line(sqlite_url) as line:
        line.transcriber.gate.shut()
        await line.says()
        await line.transcriber.gate.reached.wait()
        await line.says(digits=digits)
        assert (await line.over()).state is state
        assert line.asked == (1, 1, 0)


async def test_a_call_that_is_over_is_not_answered(sqlite_url: str) -> None:
    """A recording that comes after the call's end, or long after it was made, asks no vendor."""
    async with open_line(sqlite_url) as line:
        await line.hangs_up()
        await line.says()
        assert (await line.over()).state is TurnState.CANCELED
        await line.says(1, call_id="CA2", digits="hangup")
        assert (await line.over(call_id="CA2")).state is TurnState.CANCELED
        line.clock.forward(3600)
        await line.says(1, call_id="CA3", seconds=0)
        assert (await line.over(call_id="CA3")).state is TurnState.FAILED
        assert line.asked == (0, 0, 0)


async def test_keys_ask_no_vendor(sqlite_url: str) -> None:
    """Keys instead of speech are neither transcribed nor answered; # ends what was said."""
    async with open_line(sqlite_url) as line:
        await line.says(1, digits="5")
        assert (await line.over(1)).state is TurnState.SILENT
        assert line.asked == (0, 0, 0)
        await line.says(2, digits="#")
        assert (await line.over(2)).state is TurnState.DONE


async def test_the_conversation_is_cut_to_what_was_played(sqlite_url: str) -> None:
    """The assistant sees of its answers what the caller heard, and all of one heard to its end."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = ["One. Two. Three."]
        await line.says(1)
        await line.over(1)
        await line.receive.played(recording(1).call, 1, 2)
        # The second turn was given up; of its answer one part had been played.
        pause = shut()
        line.talker.pieces = ["Four. Five. Six", pause]
        await line.says(2)
        await pause.reached.wait()
        await line.receive.played(recording(2).call, 2, 1)
        await line.store.give_up_turn("CA1", 2, "too long")
        line.talker.pieces = ["Seven."]
        await line.says(3)
        await line.over(3)
        heard = "When do you open?"
        before = (Exchange(heard, "One. Two. Three."), Exchange(heard, "Four."))
        assert line.talker.asked[-1][0] == before
        assert (await line.turn(1)).played == 3


async def test_the_answer_follows_the_callers_language(sqlite_url: str) -> None:
    """A caller who speaks Hebrew is answered in it, and single words don't change the language."""
    async with open_line(sqlite_url) as line:
        line.transcriber.answers = [
            Transcript("מתי אתם פתוחים?", "he"),
            Transcript("OK", "en"),
            Transcript("Sorry, in English please", "english"),
        ]
        for turn in (1, 2, 3):
            await line.says(turn)
            await line.over(turn)
        assert [language for *_, language in line.talker.asked] == ["he-IL", "he-IL", "en-US"]
        assert line.transcriber.asked[:2] == [("en-US", "he-IL"), ("he-IL", "en-US")]


async def test_more_turns_than_one_process_takes(sqlite_url: str) -> None:
    """Turns beyond the limit wait, and none is forgotten."""
    async with open_line(sqlite_url, concurrency=2) as line:
        line.recordings.gate.shut()
        calls = [f"CA{number}" for number in range(6)]
        for call_id in calls:
            await line.says(call_id=call_id)

        async def two() -> bool:
            return len(line.recordings.fetched) == 2

        await until(two)
        line.recordings.gate.open.set()
        turns = [await line.over(call_id=call_id) for call_id in calls]
        assert {turn.state for turn in turns} == {TurnState.DONE}
        assert len(line.recordings.fetched) == 6


async def test_without_an_assistant_the_words_are_kept(sqlite_url: str) -> None:
    """Nobody is there to answer: what was said is transcribed, and the turn has failed."""
    async with open_line(sqlite_url, has_assistant=False) as line:
        await line.says()
        turn = await line.over()
        assert (turn.state, turn.transcript) == (TurnState.FAILED, "When do you open?")


async def test_a_turn_nobody_waits_for_is_left(sqlite_url: str) -> None:
    """Once the caller has been asked for a message, the late answer's work ends."""
    async with open_line(sqlite_url) as line:
        line.transcriber.gate.shut()
        await line.says()
        await line.transcriber.gate.reached.wait()
        line.clock.forward(31)
        await line.ask(Played(1, 0), hold=0)
        assert (await line.over()).state is TurnState.FAILED

        async def idle() -> bool:
            return not line.worker._running

        await until(idle)
        assert line.asked == (1, 1, 0)
