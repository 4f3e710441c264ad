"""What a caller hears next, whatever happened: never silence, never an error."""

import asyncio
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from services.messaging.domain.business_hours import BusinessHours
from services.messaging.domain.call import CallAction, TurnState
from services.messaging.domain.language import PHRASES, Phrase
from services.messaging.domain.script import (
    AfterPart,
    AfterSilence,
    Dial,
    HangUp,
    Play,
    Record,
    Say,
    Script,
    Step,
)
from services.messaging.ports.speech import Transcript
from services.messaging.usecases.calls.prompts import Prompts
from services.messaging.usecases.calls.requests import Dialed, Incoming, Played, Recorded, Silent
from tests.support.calls import seen
from tests.support.scripted import QUIET, Gate, ScriptedVoice, audio_id
from tests.support.turns import open_line

PERSON = "+97231234567"
# `START` is a Sunday, 14:00 in Jerusalem.
JERUSALEM = ZoneInfo("Asia/Jerusalem")
WEEKDAYS = BusinessHours.parse("Mon-Thu 09:00-18:00", JERUSALEM)


def shut() -> Gate:
    gate = Gate()
    gate.shut()
    return gate


def said(phrase: Phrase, language: str = "en-US") -> Say:
    """A phrase before it is rendered."""
    return Say(PHRASES[language][phrase], language)


def played(text: str, language: str = "en-US") -> Play:
    return Play(audio_id(text), text, language)


def listening(turn: int, seconds: int = 60, silence: int = 2) -> Script:
    return (Record(turn, seconds, silence), AfterSilence(turn))


def asked_for_message(why: Phrase, turn: int, language: str = "en-US") -> Script:
    """A caller is asked to leave a message, and thanked when there is none."""
    return (
        said(why, language),
        said(Phrase.LEAVE_MESSAGE, language),
        Record(turn, 180, 5, beep=True, voicemail=True),
        said(Phrase.GOODBYE, language),
        HangUp(),
    )


async def test_a_call_is_greeted(sqlite_url: str) -> None:
    """A caller is greeted and listened to, and asking again gives the same."""
    async with open_line(sqlite_url) as line:
        script = (said(Phrase.GREETING), *listening(1))
        assert await line.ask(Incoming()) == script
        assert await line.ask(Incoming()) == script


async def test_outside_business_hours(sqlite_url: str) -> None:
    """A caller hears that we are closed, and may leave a message where the business wants it."""
    async with open_line(sqlite_url, hours=WEEKDAYS) as line:
        assert await line.ask(Incoming()) == asked_for_message(Phrase.CLOSED, 1)
        line.clock.forward(86_400)
        assert (await line.ask(Incoming()))[0] == said(Phrase.GREETING)
    async with open_line(sqlite_url, hours=WEEKDAYS, message_when_closed=False) as line:
        assert await line.ask(Incoming()) == (said(Phrase.CLOSED), HangUp())


async def test_without_an_assistant_a_message_is_taken(sqlite_url: str) -> None:
    """Where nobody could answer, nobody is asked a question."""
    async with open_line(sqlite_url, answers=False) as line:
        assert await line.ask(Incoming()) == asked_for_message(Phrase.NOBODY_THERE, 1)


async def test_an_answer_plays_while_it_is_made(database_url: str) -> None:
    """The first sentence plays at once, the next one as soon as it is there, then we listen."""
    async with open_line(database_url) as line:
        pause = shut()
        line.talker.pieces = ["One. Two", pause, ". Three."]
        waiting = asyncio.create_task(line.ask(Recorded(1)))
        await line.says()
        assert await waiting == (played("One."), AfterPart(1, 1))
        waiting = asyncio.create_task(line.ask(Played(1, 1)))
        await pause.reached.wait()
        pause.open.set()
        second = await waiting
        await line.over()
        assert second[0] == played("Two.")
        assert await line.ask(Recorded(1)) == (
            *(played("One."), played("Two."), played("Three.")),
            *listening(2),
        )
        assert await line.ask(Played(1, 2)) == (played("Three."), *listening(2))
        assert await line.ask(Played(1, 3)) == listening(2)


async def test_the_provider_speaks_what_we_could_not(sqlite_url: str) -> None:
    """Sentences without audio are said, in the language of the answer."""
    async with open_line(sqlite_url) as line:
        line.transcriber.answers = [Transcript("מתי אתם פתוחים?", "he")]
        line.talker.pieces = ["מתשע. ", "עד שש."]
        line.voice.failing = {"עד שש."}
        await line.says()
        await line.over()
        script = await line.ask(Recorded(1))
        assert script[:2] == (played("מתשע.", "he-IL"), Say("עד שש.", "he-IL"))


async def test_a_slow_answer_is_bridged(sqlite_url: str) -> None:
    """A caller who waits hears so, and asking goes on from where they are."""
    async with open_line(sqlite_url) as line:
        line.transcriber.gate.shut()
        await line.says()
        expected = (said(Phrase.ONE_MOMENT), AfterPart(1, 0))
        assert await line.ask(Recorded(1), hold=0) == expected
        assert await line.ask(Recorded(1), hold=0) == expected
        longer = (said(Phrase.ANOTHER_MOMENT), AfterPart(1, 0))
        assert await line.ask(Played(1, 0), hold=0) == longer
        pause = shut()
        line.talker.pieces = ["One. Two", pause]
        line.transcriber.gate.open.set()
        await pause.reached.wait()
        assert (await line.ask(Played(1, 0)))[0] == played("One.")
        assert await line.ask(Played(1, 1), hold=0) == (
            said(Phrase.ANOTHER_MOMENT),
            AfterPart(1, 1),
        )
        assert line.counted("switchboard_call_fillers_total") == 4


async def test_patience_ends(sqlite_url: str) -> None:
    """After half a minute without an answer the caller is asked for a message, however often."""
    async with open_line(sqlite_url) as line:
        line.transcriber.gate.shut()
        await line.says()
        line.clock.forward(30)
        expected = asked_for_message(Phrase.SORRY, 2)
        assert await line.ask(Played(1, 0), hold=0) == expected
        assert await line.ask(Played(1, 0), hold=0) == expected
        assert (await line.turn()).state is TurnState.FAILED
        assert line.counted("switchboard_call_turns_total", outcome="failed") == 1


async def test_a_failed_turn_takes_a_message(sqlite_url: str) -> None:
    """When the vendors are down the caller can leave a message; without one they are thanked."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = [KeyError("a bug")]
        await line.says()
        assert await line.ask(Recorded(1)) == asked_for_message(Phrase.SORRY, 2)
        assert await line.ask(Recorded(2, voicemail=True)) == (
            said(Phrase.MESSAGE_TAKEN),
            HangUp(),
        )
        assert line.counted("switchboard_call_fallbacks_total", fallback="voicemail") == 1


async def test_silence_is_asked_about_twice(sqlite_url: str) -> None:
    """Two silences in a row are asked about, after the third we say goodbye; speech starts anew.

    It makes no difference whether nothing was recorded or nothing could be heard in it.
    """
    async with open_line(sqlite_url) as line:
        first = (said(Phrase.NOT_HEARD), *listening(2, silence=5))
        assert await line.ask(Silent(1)) == first
        line.recordings.files["RE-CA1-2"] = QUIET
        await line.says(2)
        assert await line.ask(Recorded(2)) == (
            said(Phrase.STILL_NOT_HEARD),
            *listening(3, silence=5),
        )
        await line.receive.silent(seen(), 3)
        assert await line.ask(Silent(3)) == (said(Phrase.GOODBYE_UNHEARD), HangUp())
        assert await line.ask(Silent(1)) == first
        await line.says(4)
        await line.over(4)
        assert await line.ask(Silent(5)) == (said(Phrase.NOT_HEARD), *listening(6, silence=5))


async def test_keys(sqlite_url: str) -> None:
    """0 is for a person where there is one; of other keys the caller is told to speak."""
    speak = (said(Phrase.PLEASE_SPEAK), *listening(2))
    async with open_line(sqlite_url) as line:
        assert await line.ask(Recorded(1, digits="0"), hold=0) == speak
        assert await line.ask(Recorded(1, digits="12"), hold=0) == speak
        # What was said before # is worked on.
        assert (await line.ask(Recorded(1, digits="#"), hold=0))[0] == said(Phrase.ONE_MOMENT)
    async with open_line(sqlite_url, transfer_to=PERSON) as line:
        assert await line.ask(Recorded(1, digits="0")) == (
            said(Phrase.PUTTING_THROUGH),
            Dial(PERSON, 25, 1),
        )
        assert await line.ask(Recorded(1, digits="1")) == speak


async def test_a_caller_who_hung_up(sqlite_url: str) -> None:
    """Nobody is left to hear anything: the script ends, and nothing is waited for."""
    async with open_line(sqlite_url) as line:
        assert await line.ask(Recorded(1, digits="hangup")) == (HangUp(),)
        await line.says()
        await line.over()
        await line.hangs_up()
        assert await line.ask(Played(1, 1)) == (HangUp(),)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["Goodbye, then.", CallAction.HANG_UP], played("Goodbye, then.")),
        ([CallAction.HANG_UP], None),
    ],
)
async def test_the_assistant_ends_a_call(
    sqlite_url: str, pieces: list[str | CallAction | Gate | Exception], words: Step | None
) -> None:
    """The call ends after the assistant's words; where it has none, after ours."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = pieces
        await line.says()
        await line.over()
        assert await line.ask(Recorded(1)) == (words or said(Phrase.GOODBYE), HangUp())


async def test_the_assistant_hands_over(sqlite_url: str) -> None:
    """A person is called; one who doesn't answer is replaced by a message, one who did ends it."""
    async with open_line(sqlite_url, transfer_to=PERSON) as line:
        line.talker.pieces = ["One moment.", CallAction.TRANSFER]
        await line.says()
        await line.over()
        assert await line.ask(Recorded(1)) == (played("One moment."), Dial(PERSON, 25, 1))
        assert await line.ask(Dialed(1, answered=True)) == (HangUp(),)
        missed = asked_for_message(Phrase.NOBODY_THERE, 2)
        assert await line.ask(Dialed(1, answered=False)) == missed
        line.talker.pieces = [CallAction.TRANSFER]
        await line.says(2)
        await line.over(2)
        assert (await line.ask(Recorded(2)))[0] == said(Phrase.PUTTING_THROUGH)


async def test_a_transfer_that_nobody_can_take(sqlite_url: str) -> None:
    """An assistant that hands over where nobody is configured leads to a message."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = [CallAction.TRANSFER]
        await line.says()
        await line.over()
        assert await line.ask(Recorded(1)) == asked_for_message(Phrase.NOBODY_THERE, 2)


async def test_calls_have_an_end(sqlite_url: str) -> None:
    """After so many turns, or so long, the last answer is followed by a goodbye."""
    async with open_line(sqlite_url, max_turns=2, max_length=timedelta(seconds=100)) as line:
        line.talker.pieces = ["Yes."]
        await line.says(1)
        await line.over(1)
        assert await line.ask(Recorded(1)) == (played("Yes."), *listening(2))
        line.clock.forward(70)
        assert await line.ask(Recorded(1)) == (played("Yes."), *listening(2, seconds=30))
        line.clock.forward(30)
        end = (played("Yes."), said(Phrase.OUT_OF_TIME), HangUp())
        assert await line.ask(Recorded(1)) == end
    async with open_line(sqlite_url, max_turns=2) as line:
        line.talker.pieces = ["Yes."]
        await line.says(2)
        await line.over(2)
        assert await line.ask(Recorded(2)) == end


async def test_a_recording_that_never_arrives(sqlite_url: str) -> None:
    """A call or turn that the journal hasn't brought is waited for, and then given up."""
    async with open_line(sqlite_url) as line:
        filler = (said(Phrase.ONE_MOMENT), AfterPart(3, 0))
        assert await line.ask(Recorded(3), hold=0) == filler
        assert await line.ask(Recorded(3), hold=0) == filler
        assert await line.ask(Played(3, 0), hold=0) == asked_for_message(Phrase.SORRY, 4)


async def test_turns_may_come_in_any_order(sqlite_url: str) -> None:
    """A turn is answered although an earlier one is unknown, which then has its own answer."""
    async with open_line(sqlite_url) as line:
        line.talker.pieces = ["Yes."]
        await line.says(3)
        await line.over(3)
        assert await line.ask(Recorded(3)) == (played("Yes."), *listening(4))
        await line.says(2)
        await line.over(2)
        assert await line.ask(Recorded(2)) == (played("Yes."), *listening(3))


async def test_phrases_follow_the_callers_language(sqlite_url: str) -> None:
    """Once a caller has spoken Hebrew, our own words are Hebrew too."""
    async with open_line(sqlite_url) as line:
        line.transcriber.answers = [Transcript("מתי אתם פתוחים?", "he")]
        await line.says()
        await line.over()
        assert (await line.ask(Silent(2)))[0] == said(Phrase.NOT_HEARD, "he-IL")
        taken = (said(Phrase.MESSAGE_TAKEN, "he-IL"), HangUp())
        assert await line.ask(Recorded(3, voicemail=True)) == taken


async def test_phrases_are_said_until_they_are_rendered() -> None:
    """Before their audio is there, and when it can't be made, the provider says them."""
    voice = ScriptedVoice()
    own = {Phrase.GREETING: "Example Estates, good day."}
    prompts = Prompts(voice.speak, language="he-IL", own_texts=own, retention=timedelta(days=30))
    greeting = own[Phrase.GREETING]
    assert prompts.step(Phrase.GREETING, "he-IL") == Say(greeting, "he-IL")
    failing = PHRASES["en-US"][Phrase.SORRY]
    voice.failing = {failing}
    assert not await prompts.render()
    assert prompts.step(Phrase.GREETING, "he-IL") == played(greeting, "he-IL")
    assert prompts.step(Phrase.GREETING, "ru-RU") == played(PHRASES["en-US"][Phrase.GREETING])
    assert prompts.step(Phrase.SORRY, "en-US") == Say(failing, "en-US")
    voice.failing = set()
    assert await prompts.render()
    assert prompts.step(Phrase.SORRY, "en-GB") == played(failing)
    assert voice.asked[0] == greeting
