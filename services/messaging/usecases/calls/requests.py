"""What may happen in a call, as a script is asked for."""

from dataclasses import dataclass
from datetime import timedelta

from services.messaging.domain.call import CallSeen


@dataclass(frozen=True, slots=True)
class Incoming:
    """Somebody calls."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The caller spoke, left a message, pressed keys or hung up."""

    turn: int
    digits: str = ""
    voicemail: bool = False


@dataclass(frozen=True, slots=True)
class Silent:
    """The caller said nothing."""

    turn: int


@dataclass(frozen=True, slots=True)
class Played:
    """The parts of an answer before `part` have been played."""

    turn: int
    part: int


@dataclass(frozen=True, slots=True)
class Dialed:
    """A person was called for the caller."""

    turn: int
    answered: bool


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What happened, and how long the answer may be waited for.

    Attributes:
        call: `at` is when the request reached us.
        hold: Longest time to wait.
    """

    call: CallSeen
    event: Incoming | Recorded | Silent | Played | Dialed
    hold: timedelta
