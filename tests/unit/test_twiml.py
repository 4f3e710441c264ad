"""Scripts as TwiML."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from switchboard.voice.v1 import script_pb2 as pb

from sandbox.phone.twiml import parse_twiml
from services.webhook.twiml import TwimlRenderer
from services.webhook.voicemail import Voicemail, Words

ORIGIN = "https://switchboard.example.com"
RETRIED = "#rc=2&rp=all"
"""So that Twilio asks another edge when the first dies before it has answered."""

ESCAPED = RETRIED.replace("&", "&amp;")
OURS = "+14155238886"
AUDIO_ID = "0123456789abcdef" * 4

# Everything a protobuf string can hold, and what XML and voices trip over.
texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="<>&\"'\0\x01\x1b\x85\u200f\u202e\ufffe\uffff\n\r\t ]]>שלום🙂", max_size=40),
    st.integers(2900, 10_000).map(lambda size: "word " * (size // 5)),
    st.just("&" * 10_000),
)
numbers = st.integers(-(2**31), 2**31 - 1)
steps = st.one_of(
    st.builds(lambda id_: pb.Step(play=pb.Play(audio_id=id_)), st.just(AUDIO_ID) | texts),
    st.builds(
        lambda text, language, voice: pb.Step(
            say=pb.Say(text=text, language=language, voice=voice)
        ),
        texts,
        st.sampled_from(["en-US", "he-IL", ""]) | texts,
        st.just("") | texts,
    ),
    st.builds(lambda seconds: pb.Step(pause=pb.Pause(seconds=seconds)), numbers),
    st.builds(
        lambda turn, most, silence, beep, voicemail: pb.Step(
            record=pb.Record(
                turn=turn,
                max_seconds=most,
                silence_seconds=silence,
                beep=beep,
                voicemail=voicemail,
            )
        ),
        numbers,
        numbers,
        numbers,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda turn, part: pb.Step(redirect=pb.Redirect(turn=turn, part=part)), numbers, numbers
    ),
    st.builds(lambda turn: pb.Step(redirect=pb.Redirect(turn=turn, silence=True)), numbers),
    st.builds(
        lambda number, seconds, turn: pb.Step(
            dial=pb.Dial(number=number, timeout_seconds=seconds, turn=turn)
        ),
        texts,
        numbers,
        numbers,
    ),
    st.just(pb.Step(hang_up=pb.HangUp())),
    st.just(pb.Step()),
)


def rendered(*steps: pb.Step, **parties: str) -> list[ET.Element]:
    twiml = TwimlRenderer(ORIGIN).render(pb.Script(steps=steps), **parties)
    # The sandbox's telephone takes for an error whatever Twilio would warn of.
    parse_twiml(twiml)
    response = ET.fromstring(twiml)
    assert response.tag == "Response"
    return list(response)


def say(text: str, **more: Any) -> pb.Step:
    return pb.Step(say=pb.Say(text=text, **more))


@given(st.lists(steps, max_size=6))
@example([])
def test_whatever_a_script_holds_its_twiml_is_whole(script: list[pb.Step]) -> None:
    """Well-formed, of known verbs, ended by one that ends or redirects, a step after <Record>."""
    verbs = rendered(*script)
    assert {verb.tag for verb in verbs} <= {
        "Play", "Say", "Pause", "Record", "Redirect", "Dial", "Hangup",
    }  # fmt: skip
    assert verbs[-1].tag in ("Redirect", "Dial", "Hangup")
    assert all(verb.tag not in ("Redirect", "Dial", "Hangup") for verb in verbs[:-1])
    assert not any(len(verb) for verb in verbs)
    for verb in verbs:
        if verb.tag == "Record":
            assert verb.get("action", "").startswith(f"{ORIGIN}/webhook/handle_recording?turn=")


@given(texts)
def test_text_is_spoken_as_text(text: str) -> None:
    """Nothing in a text is markup, no word is lost, and no piece is longer than a voice takes."""
    spoken = [verb.text or "" for verb in rendered(say(text, language="en-US"))[:-1]]
    assert all(0 < len(piece) <= 3000 for piece in spoken)
    words = "".join(one if one.isprintable() else " " for one in " ".join(spoken)).split()
    printable = "".join(one if one.isprintable() else " " for one in text)
    assert "".join(words) == "".join(printable.split())


def test_a_turn() -> None:
    """Every verb of an ordinary script, letter by letter."""
    twiml = TwimlRenderer(ORIGIN).render(
        pb.Script(
            steps=[
                pb.Step(play=pb.Play(audio_id=AUDIO_ID)),
                pb.Step(
                    record=pb.Record(turn=2, max_seconds=60, silence_seconds=2, voicemail=True)
                ),
                pb.Step(redirect=pb.Redirect(turn=2, silence=True)),
            ]
        )
    )
    assert twiml.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?><Response>'
        f"<Play>{ORIGIN}/audio/{AUDIO_ID}.mp3</Play>"
        f'<Record action="{ORIGIN}/webhook/handle_recording?turn=2&amp;voicemail=1{ESCAPED}"'
        ' maxLength="60"'
        ' method="POST" playBeep="false"'
        f' recordingStatusCallback="{ORIGIN}/webhook/recording_status?turn=2&amp;voicemail=1'
        f'{ESCAPED}"'
        ' recordingStatusCallbackEvent="completed absent" recordingStatusCallbackMethod="POST"'
        ' timeout="2" trim="do-not-trim" />'
        f'<Redirect method="POST">{ORIGIN}/webhook/voice/continue?turn=2&amp;after=silence{ESCAPED}'
        "</Redirect></Response>"
    )


def test_dialing_and_going_on_after_a_part() -> None:
    """Both ask for more at the address that says why."""
    [dial] = rendered(pb.Step(dial=pb.Dial(number="+97231234567", timeout_seconds=20, turn=3)))
    assert dial.text == "+97231234567"
    assert dial.attrib == {
        "action": f"{ORIGIN}/webhook/voice/continue?turn=3&after=dial{RETRIED}",
        "method": "POST",
        "timeout": "20",
    }
    [redirect] = rendered(pb.Step(redirect=pb.Redirect(turn=3, part=0)))
    assert redirect.text == f"{ORIGIN}/webhook/voice/continue?turn=3&after=part&part=0{RETRIED}"


@pytest.mark.parametrize(
    ("caller", "called", "shown"),
    [
        ("+972501234567", OURS, None),
        ("+266696687", OURS, OURS),
        ("anonymous", OURS, OURS),
        ("", OURS, OURS),
        ("client:alice", OURS, OURS),
        ("sip:bob@example.com", OURS, OURS),
        ("+1234", OURS, OURS),
        ("sip:bob@example.com", "sip:us@example.com", None),
    ],
)
def test_the_person_is_shown_a_number(caller: str, called: str, shown: str | None) -> None:
    """The caller's own, which Twilio passes on, or ours: a call that shows none may be refused."""
    dial = pb.Step(dial=pb.Dial(number="+97231234567", turn=3))
    assert rendered(dial, caller=caller, called=called)[0].get("callerId") == shown


def test_a_person_without_a_number_is_one_who_does_not_answer() -> None:
    """Twilio would end the call over it; so messaging is asked what follows instead."""
    [redirect] = rendered(pb.Step(dial=pb.Dial(number="the office", turn=3)))
    assert redirect.text == f"{ORIGIN}/webhook/voice/continue?turn=3&after=dial{RETRIED}"


def test_hebrew_has_a_voice_that_speaks_it() -> None:
    """Twilio's default voice doesn't; a voice that a script names comes first."""
    [spoken, named, _] = rendered(
        say("שלום", language="he-IL"), say("שלום", language="he-IL", voice="Google.he-IL-Wavenet-D")
    )
    assert spoken.get("voice") == "Google.he-IL-Wavenet-A"
    assert named.get("voice") == "Google.he-IL-Wavenet-D"
    assert rendered(say("Hello", language="en-US"))[0].get("voice") is None


def test_silence_after_the_last_recording_asks_for_more() -> None:
    """A script that forgot what follows a recording doesn't end the call."""
    [_, redirect] = rendered(pb.Step(record=pb.Record(turn=4)))
    assert redirect.text == f"{ORIGIN}/webhook/voice/continue?turn=4&after=silence{RETRIED}"


def test_voicemail_in_every_language() -> None:
    """An apology or greeting, a recording with a tone, thanks, and the end."""
    for language in ("en-US", "he-IL"):
        voicemail = Voicemail(language)
        for words in (Words.GREETING, Words.APOLOGY):
            verbs = rendered(*voicemail.script(words, turn=7).steps)
            assert [verb.tag for verb in verbs] == ["Say", "Record", "Say", "Hangup"]
            assert verbs[1].get("playBeep") == "true"
            assert (
                verbs[1].get("action")
                == f"{ORIGIN}/webhook/handle_recording?turn=7&voicemail=1{RETRIED}"
            )
        verbs = rendered(*voicemail.script(Words.GOODBYE, turn=7).steps)
        assert [verb.tag for verb in verbs] == ["Say", "Hangup"]
