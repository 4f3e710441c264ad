"""Telephone calls through the whole system: the sandbox calls, and listens to what it is told."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.listening import (
    ANSWER,
    GOODBYE,
    GREETING,
    MISSED,
    QUESTION,
    asked_once,
    entries,
    heard,
    states,
)
from tests.support.stack import RunningStack

PERSON = "+97231234567"

pytestmark = pytest.mark.timeout(400)


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
    deadline = time.monotonic() + 120
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
    deadline = time.monotonic() + 120
    while (stored := stack.stored(call["sid"]))["turns"] == [] or states(stored) == ["working"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert states(stored) == ["canceled"]
    # It follows in a transaction of its own.
    stack.stored(call["sid"], outcome="missed")
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

    deadline = time.monotonic() + 120
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
    assert lines[0].endswith(" ms  +972501234567 calls")
    assert any(line.endswith(f": {GREETING}") for line in lines)
    assert f"understood: {QUESTION}" in lines
    assert any(
        re.search(r"hears \(.* after the caller's turn\): Yes, the flat", line) for line in lines
    )
    assert any(
        re.match(r"turn 1: 2 sentences, 2 heard, .*gap [1-9][\d,]* ms", line) for line in lines
    )
    assert lines[-1].startswith("outcome: answered, kept as CA")
