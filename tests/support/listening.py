"""What is asked of every telephone call through the whole system."""

from collections import Counter
from typing import Any

from tests.support.stack import RunningStack

QUESTION = "Is the flat in Haifa still free?"
ANSWER = [
    "Yes, the flat in Haifa is still free.",
    "Would you like to come and see it this week?",
]
GOODBYE = "Thanks, goodbye!"
GREETING = "Example Estates, good day. How can I help you?"
MISSED = "Sorry that we missed your call. How can we help?"
_LONGEST_QUIET_MS = 12_000
"""The edge holds a request for 8 s at most, and Twilio ends a call after 15. What is between them
is for a machine that is busy with other tests."""


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
            assert sound["ms"] - end < _LONGEST_QUIET_MS, call["timeline"]
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
