"""The faults that kill a process between two of its steps, see `process` and `call_process`."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from tests.chaos.call_process import VARIANTS
from tests.chaos.fault import Fault
from tests.chaos.stack import ChaosStack
from tests.chaos.steps import (
    Surroundings,
    broker_away,
    broker_back,
    killed_at,
    twilio_hangs,
    twilio_is_mute,
)

_SAYS = "kill -9 when this step is done"


def edges(stack: ChaosStack) -> Sequence[str]:
    """The replicas of webhook."""
    return stack.edges


def messagings(stack: ChaosStack) -> Sequence[str]:
    """The replicas of messaging."""
    return stack.messagings


_MESSAGES: Sequence[tuple[str, Surroundings, Sequence[str]]] = (
    (
        "webhook",
        nullcontext,
        (
            *("verified", "published", "bundled", "moving", "moved", "confirmed", "answered"),
            *("asked", "passed-on"),
        ),
    ),
    ("webhook", broker_away, ("unspilled", "spilled")),
    ("webhook", broker_back, ("drained", "deleted")),
    (
        "messaging",
        nullcontext,
        (
            *("fetched", "translated", "stored", "acknowledged"),
            *("reply-claimed", "reply-written", "reply-stored"),
            *("requested", "enqueued", "claimed", "answered", "settled"),
            *("act-read", "act-journaled", "act-marked"),
        ),
    ),
    ("messaging", twilio_hangs, ("sent",)),
    ("messaging", twilio_is_mute, ("looked-up",)),
)

_CALLS: Sequence[tuple[str, Surroundings, Sequence[str]]] = (
    (
        "webhook",
        nullcontext,
        (
            *("call-verified", "call-published", "call-confirmed"),
            *("call-asked", "call-told", "call-rendered", "call-answered", "call-audio"),
        ),
    ),
    ("webhook", broker_away, ("call-unspilled", "call-spilled")),
    (
        "messaging",
        nullcontext,
        (
            *("call-fetched", "call-folded", "call-outcome", "call-missed", "call-kept"),
            *("call-acknowledged", "call-asked", "call-decided"),
            *("turn-claimed", "turn-fetched", "turn-heard", "turn-noted", "turn-rendered"),
            *("turn-spoken", "turn-part", "turn-answered", "turn-finished"),
            *("recording-deleted", "recording-forgotten"),
        ),
    ),
)


def step_faults() -> Iterator[Fault]:
    """A kill between each two steps, of messages and of calls."""
    for table, calls in ((_MESSAGES, False), (_CALLS, True)):
        for service, surroundings, steps in table:
            found = edges if service == "webhook" else messagings
            for step in steps:
                name = f"{service}-{step}"
                variants = [f"{name}.{one}" for one in VARIANTS.get(name, ())]
                strike = killed_at(variants or [name], found, surroundings)
                yield Fault(name, _SAYS, strike, calls=calls)
