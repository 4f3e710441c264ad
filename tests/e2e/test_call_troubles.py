"""Telephone calls when something is down, late, wrong or told twice: the caller hears words."""

import time
from typing import Any

import pytest

from tests.support.listening import ANSWER, GOODBYE, GREETING, QUESTION, asked_once, heard, states
from tests.support.stack import RunningStack

pytestmark = pytest.mark.timeout(400)


def test_without_messaging(stack: RunningStack) -> None:
    """The edge alone takes a message, which is understood once messaging is back."""
    with stack.away("messaging"):
        call = stack.call("This is Noa, please call me back.")
        said = heard(call)
        assert any("message" in text for text in said)
    stored = stack.stored(call["sid"], outcome="voicemail")
    deadline = time.monotonic() + 120
    while states(stored := stack.stored(call["sid"])) != ["done"]:
        assert time.monotonic() < deadline, stored
        time.sleep(0.1)
    (turn,) = stored["turns"]
    assert turn["voicemail"]
    assert turn["transcript"] == "This is Noa, please call me back."


def test_messaging_dies_in_a_turn(stack: RunningStack) -> None:
    """A turn whose worker is killed ends in words all the same."""
    stack.reset(answer=2)
    sid = stack.begin(QUESTION, GOODBYE, speed=5)
    while not any(one["vendor"] == "answer" for one in stack.vendor_calls()):
        time.sleep(0.02)
    with stack.away("messaging"):
        pass
    call = stack.finished(sid)
    assert heard(call)[0] == GREETING
    assert len(heard(call)) > 1
    stack.stored(sid)


@pytest.mark.parametrize(
    "down",
    [
        {"transcription": {}},
        {"openai_error_500": {}},
        {"google_speech": {}, "speech": {}},
        {"google_speech": {}},
        {"transcription": {"kind": "hang"}},
        {"google_speech": {"kind": "hang"}, "speech": {"kind": "hang"}},
    ],
    ids=lambda down: "+".join(f"{name} {fault.get('kind', '')}" for name, fault in down.items()),
)
def test_vendors_down(stack: RunningStack, down: dict[str, Any]) -> None:
    """Whatever fails, the caller hears words, and is answered or can leave a message."""
    stack.faults(**down)
    call = stack.call(QUESTION, "Please call me back.", speed=5)
    said = heard(call)
    stored = stack.stored(call["sid"])
    answered = "google_speech" in down
    if answered:
        # Unknown sentences by another vendor, or by Twilio's voice; the greeting was there.
        assert [text for text in said if text in ANSWER] == ANSWER
    else:
        assert any("message" in text for text in said), said
        assert stored["turns"][-1]["voicemail"]


@pytest.mark.parametrize(
    ("fault", "transcribed"),
    [
        ({"recording_late": {"seconds": 1}}, 1),
        ({"recording_absent": {"times": 1}}, 0),
        ({"recording_content": {"kind": "not_audio", "times": 1}}, 0),
        ({"recording_content": {"kind": "empty", "times": 1}}, 0),
        ({"recording_content": {"kind": "hour", "times": 1}}, 0),
        ({"recording_elsewhere": {"url": "https://example.com/RE.wav", "times": 1}}, 0),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_recordings(stack: RunningStack, fault: dict[str, Any], transcribed: int) -> None:
    """A recording that is late is waited for; one that is none leads to words, and to no vendor."""
    stack.faults(**fault)
    call = stack.call(QUESTION, speed=5)
    said = heard(call)
    assert len(said) > 1
    assert len(stack.vendor_calls("transcription")) == transcribed
    if transcribed:
        assert said[-len(ANSWER) :] == ANSWER


def test_an_address_elsewhere_is_never_fetched(stack: RunningStack) -> None:
    """A recording's address on a host that isn't Twilio's leads nowhere."""
    url = f"{stack.addresses.health}/2010-04-01/Accounts/AC{'0' * 32}/Recordings/RE{'0' * 32}"
    stack.faults(recording_elsewhere={"url": url, "times": 1})
    heard(stack.call(QUESTION, speed=5))
    assert stack.vendor_calls("recording") == []


def test_webhooks_twice_and_out_of_order(stack: RunningStack) -> None:
    """Each webhook comes twice, recordings are reported before their action, statuses in any
    order: the conversation is the same, and no vendor is asked twice."""
    stack.faults(
        duplicate_call_webhooks={"copies": 2},
        recording_callback={"when": "before", "copies": 2},
        call_statuses={"order": ["completed", "ringing", "in-progress"], "copies": 2},
    )
    call = stack.call("How much is the flat in Haifa?", GOODBYE)
    said = heard(call)
    assert said[1] == "The rent is 4,200 shekels a month."
    assert said[-1] == "Goodbye!"
    stored = stack.stored(call["sid"], outcome="answered")
    assert stored["status"] == "completed"
    assert states(stored) == ["done", "done"]
    asked_once(stack)
