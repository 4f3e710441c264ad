"""What is found of calls that went wrong."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.call_checker import errors_heard, of_turns

SAID = "What about lot 7-1?"
ANSWER = ["Thanks for your message: “What about lot 7-1?”.", "A colleague will call."]


def call(*heard: str, error: str = "") -> dict[str, Any]:
    entries = [{"kind": "recorded", "sid": "RE1", "text": SAID}]
    entries += [{"kind": "playing", "text": text} for text in heard]
    entries += [{"kind": "error", "text": error}] * bool(error)
    return {"timeline": entries}


def turn(**more: Any) -> SimpleNamespace:
    usual = {"recording_id": "RE1", "transcript": SAID, "parts": 2, "state": "done"}
    return SimpleNamespace(**{**usual, "lease_until": None, **more})


@pytest.mark.parametrize(
    ("heard", "sentences", "changes", "found"),
    [
        (ANSWER, ANSWER, {}, []),
        (["One moment, please.", *ANSWER], ANSWER, {}, []),
        (ANSWER[:1], ANSWER, {}, []),
        (ANSWER, [*ANSWER, *ANSWER], {"parts": 4}, ["answers given twice"]),
        ([ANSWER[0], *ANSWER], ANSWER, {}, ["answers heard twice"]),
        (ANSWER, ANSWER[1:], {"parts": 1}, ["answers heard that aren't stored"]),
        (ANSWER, ANSWER, {"transcript": "Something"}, ["turns with somebody else's words"]),
        ([], [], {"parts": 0, "state": "working"}, ["turns claimed for ever"]),
    ],
)
def test_turns(
    heard: Sequence[str], sentences: list[str], changes: Mapping[str, Any], found: list[str]
) -> None:
    """A turn has its own words and one answer, which its caller hears once, whole or in part."""
    assert of_turns(call(*heard), [(turn(**changes), sentences)]) == found


def test_a_recording_that_became_two_turns() -> None:
    """What was said once is one turn."""
    turns = [(turn(), ANSWER), (turn(parts=0), [])]
    assert of_turns(call(*ANSWER), turns) == ["recordings stored twice"]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        ("http://127.0.0.1/audio/0f.mp3: ReadError", False),
        ("http://127.0.0.1/webhook/handle_recording?turn=1: no answer", True),
    ],
)
def test_errors(error: str, counts: bool) -> None:
    """An error that Twilio tells its caller counts, unless an edge died over an audio file."""
    assert errors_heard(call(error=error)) == [error] * counts
    assert errors_heard(call()) == []
