"""The core of a turn: an answer that is spoken while it is still being written."""

import asyncio
import contextlib
from datetime import UTC, datetime

from services.common.errors import UnavailableError
from services.messaging.domain.call import AnswerPart, CallAction
from services.messaging.ports.speech import Exchange
from services.messaging.usecases.calls.turn import Answer, Answering
from tests.support.scripted import Gate, ScriptedTalker, ScriptedVoice, audio_id

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def answering(talker: ScriptedTalker, voice: ScriptedVoice) -> Answering:
    return Answering(talker, voice.speak, clock=lambda: NOW)


def answer(talker: ScriptedTalker, voice: ScriptedVoice) -> Answer:
    return answering(talker, voice).answer((), "Hello?", language="en-US")


async def spoken(one: Answer) -> list[AnswerPart]:
    async with one, contextlib.aclosing(one.parts()) as parts:
        return [part async for part in parts]


def rendered(text: str) -> AnswerPart:
    return AnswerPart(text, audio_id(text))


def shut() -> Gate:
    gate = Gate()
    gate.shut()
    return gate


async def test_the_first_sentence_is_heard_while_the_rest_is_written() -> None:
    """A sentence is rendered as soon as it is whole, whatever the assistant does meanwhile."""
    talker, voice, pause = ScriptedTalker(), ScriptedVoice(), shut()
    talker.pieces = ["Yes. ", "We open ", pause, "at nine."]
    one = answer(talker, voice)
    async with one, contextlib.aclosing(one.parts()) as parts:
        assert await anext(parts) == rendered("Yes.")
        assert one.first_sentence_at == NOW
        assert not pause.open.is_set()
        pause.open.set()
        assert [part async for part in parts] == [rendered("We open at nine.")]
    assert (one.action, one.problem) == (CallAction.LISTEN, None)


async def test_sentences_are_rendered_side_by_side_and_come_in_order() -> None:
    """A second sentence is rendered while the first one is, and waits for it."""
    talker, voice = ScriptedTalker(), ScriptedVoice()
    talker.pieces = ["One. Two. Three."]
    voice.gates["One."] = shut()
    one = answer(talker, voice)
    async with one, contextlib.aclosing(one.parts()) as parts:
        first = asyncio.create_task(anext(parts))
        async with asyncio.timeout(60):
            while voice.done != ["Two.", "Three."]:  # noqa: ASYNC110 - Nobody sets an event for it.
                await asyncio.sleep(0)
        assert not first.done()
        voice.gates["One."].open.set()
        assert await first == rendered("One.")
        assert [part async for part in parts] == [rendered("Two."), rendered("Three.")]


async def test_only_so_much_is_rendered_ahead() -> None:
    """An answer without an end doesn't run away from the caller who listens to its beginning."""
    talker, voice = ScriptedTalker(), ScriptedVoice()
    talker.pieces = [f"This is number {number}. " for number in range(1000)]
    one = answer(talker, voice)
    async with one, contextlib.aclosing(one.parts()) as parts:
        await anext(parts)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(voice.asked) <= 6
    assert talker.ended == 1


async def test_leaving_ends_all_work() -> None:
    """When the caller hangs up, the assistant's request is closed and no vendor goes on."""
    talker, voice, pause = ScriptedTalker(), ScriptedVoice(), shut()
    talker.pieces = ["One. Two. And", pause]
    voice.gates["Two."] = shut()
    one = answer(talker, voice)
    async with one, contextlib.aclosing(one.parts()) as parts:
        await anext(parts)
        await voice.gates["Two."].reached.wait()
        await pause.reached.wait()
    assert talker.ended == 1
    assert voice.asked == ["One.", "Two."]
    assert voice.done == ["One."]
    assert len(asyncio.all_tasks()) == 1


async def test_a_voice_that_fails_leaves_the_rest_to_the_provider() -> None:
    """From the first sentence that can't be rendered on, the provider speaks: one change of voice.

    A sentence never is lost for want of a voice.
    """
    talker, voice = ScriptedTalker(), ScriptedVoice()
    talker.pieces = ["One. Two. Three. Four."]
    voice.failing = {"Two."}
    expected = [rendered("One."), *(AnswerPart(text, None) for text in ("Two.", "Three.", "Four."))]
    assert await spoken(answer(talker, voice)) == expected


async def test_an_assistant_that_breaks_off_is_heard_to_that_point() -> None:
    """What was written before an assistant failed is said, and the failure is told."""
    talker, voice = ScriptedTalker(), ScriptedVoice()
    for error, problem in ((UnavailableError("it is down"), "it is down"), (KeyError(), "failed")):
        talker.pieces = ["One. And two", error]
        one = answer(talker, voice)
        assert await spoken(one) == [rendered("One."), rendered("And two")]
        assert problem in (one.problem or "")


async def test_actions_come_with_words_and_without() -> None:
    """The assistant can end the call or hand it over, before, after or without its words."""
    talker, voice = ScriptedTalker(), ScriptedVoice()
    talker.pieces = [CallAction.TRANSFER, "One moment."]
    one = answer(talker, voice)
    assert await spoken(one) == [rendered("One moment.")]
    assert one.action is CallAction.TRANSFER
    pause = shut()
    talker.pieces = ["Goodbye.", CallAction.HANG_UP, pause]
    one = answer(talker, voice)
    async with one, contextlib.aclosing(one.parts()) as parts:
        assert await anext(parts) == rendered("Goodbye.")
    talker.pieces = [CallAction.HANG_UP]
    one = answer(talker, voice)
    assert await spoken(one) == []
    assert one.action is CallAction.HANG_UP


async def test_the_conversation_so_far_is_handed_on() -> None:
    """The assistant is shown what the caller has heard, and in which language to answer."""
    talker, voice = ScriptedTalker(), ScriptedVoice()
    before = (Exchange("Hello?", "Good day."),)
    await spoken(answering(talker, voice).answer(before, "And?", language="he-IL"))
    assert talker.asked == [(before, "And?", "he-IL")]
