"""What a caller hears and does next, in steps that know nothing of the provider."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Play:
    """Rendered speech, by the name of its file, and what it says in case it can't be played."""

    audio_id: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Say:
    """The provider's own speech, where none of ours could be made."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Record:
    """Records what the caller says; when that is nothing, the next step follows.

    Attributes:
        turn: Number of the turn, from 1.
        silence_seconds: Silence that ends the recording.
        voicemail: It is stored and transcribed, and not answered.
    """

    turn: int
    max_seconds: int
    silence_seconds: int
    beep: bool = False
    voicemail: bool = False


@dataclass(frozen=True, slots=True)
class AfterPart:
    """Ask for what follows once the parts before `part` were played."""

    turn: int
    part: int


@dataclass(frozen=True, slots=True)
class AfterSilence:
    """Ask for what follows a turn in which the caller said nothing."""

    turn: int


@dataclass(frozen=True, slots=True)
class Dial:
    """Connects the caller with a person; the answer or its absence is asked about after `turn`."""

    number: str
    timeout_seconds: int
    turn: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """Ends the call."""


Step = Play | Say | Pause | Record | AfterPart | AfterSilence | Dial | HangUp

Script = tuple[Step, ...]
"""The last step hangs up, dials or asks for more: a call ends where its script ends."""
