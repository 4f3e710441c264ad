"""Telephone calls through the whole system: the sandbox calls, and listens to what it is told."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import RunningStack, running_stack

QUESTION = "Is the flat in Haifa still free?"
ANSWER = [
    "Yes, the flat in Haifa is still free.",
    "Would you like to come and see it this week?",
]
GOODBYE = "Thanks, goodbye!"
GREETING = "Example Estates, good day. How can I help you?"
PERSON = "+97231234567"
MISSED = "Sorry that we missed your call. How can we help?"
LONGEST_QUIET_MS = 9_000

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    variables = {
        "MISSED_CALL_REPLY": MISSED,
        "RECORDING_RETENTION": "none",
        "SANDBOX_RECORDING_AFTER": "0",
        "RECIPIENT_SECONDS_BETWEEN_MESSAGES": "0",
        "ASSISTANT_PAUSE_SECONDS": "0",
    }
    with running_stack(tmp_path_factory.mktemp("stack"), variables) as running:
        yield running


@pytest.fixture
def stack(running: RunningStack) -> RunningStack:
    running.reset()
    return running


def entries(call: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    """What happened of these kinds."""
    return [entry for entry in call["timeline"] if entry["kind"] in kinds]


def heard(call: dict[str, Any]) -> list[str]:
    """All that the caller heard, after the checks that hold for every call.

    There was no application error, and the line was never quiet for long.
    """
    assert call["error_code"] is None, call["timeline"]
    sounds = entries(
        call,
        *("ringing", "playing", "saying", "beep", "speaking", "silent", "recorded"),
        *("dialing", "dialed", "ended"),
    )
    end = 0
    for sound in sounds:
        if sound["kind"] not in ("recorded", "dialed"):
            assert sound["ms"] - end < LONGEST_QUIET_MS, call["timeline"]
        end = max(end, sound["ms"])
        if sound["kind"] in ("playing", "saying", "speaking", "silent"):
            end += round(1000 * sound["seconds"])
    return [entry["text"] for entry in entries(call, "playing", "saying")]


def asked_once(stack: RunningStack) -> None:
    """No vendor was asked the same twice; recordings are asked for until they are there."""
    asked = Counter(
        (call["vendor"], call["about"])
        for call in stack.vendor_calls()
        if not (call["vendor"] == "recording" and call["outcome"] == "refused")
    )
    assert [one for one, times in asked.items() if times > 1] == []


def states(call: dict[str, Any]) -> list[str]:
    return [turn["state"] for turn in call["turns"]]


def test_a_conversation(stack: RunningStack) -> None:
    """A caller is greeted, asks, is answered sentence by sentence by speech of ours, says goodbye
    and the call ends; everything is kept, and the recordings aren't."""
    call = stack.call(QUESTION, GOODBYE)
    assert heard(call) == [GREETING, *ANSWER, "Thank you for calling.", "Goodbye!"]
    assert not entries(call, "saying")
    assert [entry["text"] for entry in entries(call, "hung_up")] == ["application"]

    stored = stack.stored(call["sid"], outcome="answered")
    assert (stored["status"], stored["caller"]) == ("completed", "+972501234567")
    assert [turn["transcript"] for turn in stored["turns"]] == [QUESTION, GOODBYE]
    assert states(stored) == ["done", "done"]
    first = stored["turns"][0]
    assert [part["text"] for part in first["answer"]] == ANSWER
    assert all(part["played"] for part in first["answer"])
    assert all(value is not None for value in first["timings"].values())
    assert call["sid"] in [one["id"] for one in stack.api.get("/api/calls").json()["calls"]]
    asked_once(stack)
    deadline = time.monotonic() + 30
    while not all(one["deleted"] for one in stack.sandbox.get("/sandbox/recordings").json()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_hebrew(stack: RunningStack) -> None:
    """Who speaks Hebrew is answered in Hebrew."""
    call = stack.call("הדירה בחיפה עדיין פנויה?", "תודה, להתראות")
    said = heard(call)
    assert said[1:3] == ["כן, הדירה עדיין פנויה.", "תרצו לבוא לראות אותה השבוע?"]
    assert "להתראות!" in said[-1]
    stored = stack.stored(call["sid"])
    assert stored["language"] == "he-IL"
    assert stored["turns"][0]["transcript"] == "הדירה בחיפה עדיין פנויה?"


def test_silence(stack: RunningStack) -> None:
    """Who says nothing is asked twice, then told goodbye; no vendor hears the silence."""
    call = stack.call(stays=True)
    said = heard(call)
    assert len(entries(call, "silent")) == 3
    assert said[0] == GREETING
    assert "Goodbye" in said[-1]
    assert [entry["text"] for entry in entries(call, "hung_up")] == ["application"]
    assert stack.vendor_calls("transcription") == []
    stack.stored(call["sid"], outcome="missed")


@pytest.mark.parametrize("busy", ["answer", "transcription"])
def test_hanging_up_ends_the_work(stack: RunningStack, busy: str) -> None:
    """When the caller hangs up while an answer is made, nothing more is asked of the vendors."""
    stack.reset(**{busy: 20})
    call = stack.call(QUESTION, hang_up={"waiting": 1})
    assert heard(call) == [GREETING]
    stored = stack.stored(call["sid"])
    deadline = time.monotonic() + 15
    while (stored := stack.stored(call["sid"]))["turns"] == [] or states(stored) == ["working"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert states(stored) == ["canceled"]
    assert stored["outcome"] == "missed"
    spoken = [one for one in stack.vendor_calls("google_speech") if one["about"] in ANSWER]
    assert spoken == []
    while any(one["seconds"] is None for one in stack.vendor_calls(busy)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert {one["outcome"] for one in stack.vendor_calls(busy)} <= {"abandoned"}


def test_only_what_was_heard_is_remembered(stack: RunningStack) -> None:
    """An answer that the caller cut off isn't marked as played."""
    call = stack.call(QUESTION, hang_up={"playing": 1})
    assert heard(call) == [GREETING, ANSWER[0]]
    stored = stack.stored(call["sid"])
    assert not any(part["played"] for turn in stored["turns"] for part in turn["answer"])


@pytest.mark.parametrize("person", ["answers", "no-answer"])
def test_transfer(stack: RunningStack, person: str) -> None:
    """Who asks for a person is put through; when nobody answers, a message is taken."""
    call = stack.call("Can I speak to a person?", "Please call me back.", person=person)
    said = heard(call)
    assert [entry["text"] for entry in entries(call, "dialing")] == [PERSON]
    if person == "answers":
        stack.stored(call["sid"], outcome="transferred")
        return
    assert any("message" in text for text in said)
    stored = stack.stored(call["sid"], outcome="voicemail")
    assert stored["turns"][-1]["voicemail"]


def test_digits(stack: RunningStack) -> None:
    """Keys instead of words lead to words."""
    call = stack.call({"digits": "5"}, GOODBYE)
    said = heard(call)
    assert said[-1].endswith("Goodbye!")
    assert len(stack.vendor_calls("transcription")) == 1


def test_without_messaging(stack: RunningStack) -> None:
    """The edge alone takes a message, which is understood once messaging is back."""
    with stack.away("messaging"):
        call = stack.call("This is Noa, please call me back.")
        said = heard(call)
        assert any("message" in text for text in said)
    stored = stack.stored(call["sid"], outcome="voicemail")
    deadline = time.monotonic() + 30
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


def test_what_was_said_before_is_not_said_anew(stack: RunningStack) -> None:
    """Sentences that were spoken once come from the cache in the next call."""
    question = "When are you open?"
    first = heard(stack.call(question))
    stack.sandbox.post("/sandbox/reset").raise_for_status()
    assert heard(stack.call(question)) == first
    assert stack.vendor_calls("google_speech") == []


def test_missed_call_reply(stack: RunningStack) -> None:
    """Who wrote before and then calls in vain gets a message; who never wrote doesn't."""
    known, stranger = "+972521111111", "+972522222222"
    written = stack.sandbox.post(
        f"/sandbox/contacts/{known}/messages", json={"body": "Hello"}
    ).json()
    assert written["webhook_status"] == 200
    for caller in (stranger, known):
        call = stack.call(hang_up={"playing": 0}, caller=caller)
        stack.stored(call["sid"], outcome="missed")

    def sent() -> list[tuple[str, str]]:
        messages = stack.sandbox.get("/sandbox/messages").json()
        return [
            (message["recipient"], message["body"])
            for message in messages
            if message["body"] == MISSED
        ]

    deadline = time.monotonic() + 30
    while not sent():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sent() == [(f"whatsapp:{known}", MISSED)]


def test_the_command(stack: RunningStack, tmp_path: Path) -> None:
    """`switchboard call` shows a call as it goes on, and what came of it."""
    stack.reset(answer=0.3)
    data = stack.publish()
    command = [sys.executable, "-m", "cli", "call", "--speed", "10"]
    called = subprocess.run(
        [*command, f"{QUESTION} | {GOODBYE}"],
        cwd=tmp_path,
        env=os.environ | {"SWITCHBOARD_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    assert called.returncode == 0, called.stdout
    lines = [line.strip() for line in called.stdout.splitlines()]
    assert lines[0] == "0 ms  +972501234567 calls"
    assert any(line.endswith(f": {GREETING}") for line in lines)
    assert f"understood: {QUESTION}" in lines
    assert any(
        re.search(r"hears \(.* after the caller's turn\): Yes, the flat", line) for line in lines
    )
    assert any(re.match(r"turn 1: 2 sentences, 2 heard, .*gap [1-9]\d* ms", line) for line in lines)
    assert lines[-1].startswith("outcome: answered, kept as CA")
