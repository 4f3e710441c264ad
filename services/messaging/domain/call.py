"""Telephone calls: where they stand, and what was said in turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class CallStatus(StrEnum):
    """Where a call stands. Of several reports the one that stands last here holds."""

    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in_progress"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no_answer"
    CANCELED = "canceled"
    COMPLETED = "completed"

    @property
    def rank(self) -> int:
        """Position in the order of progress."""
        return list(CallStatus).index(self)

    @property
    def has_ended(self) -> bool:
        """Whether nobody is on the line any more."""
        return self.rank >= CallStatus.BUSY.rank


class CallOutcome(StrEnum):
    """What came of a call."""

    ANSWERED = "answered"
    """At least one thing the caller said was answered."""
    TRANSFERRED = "transferred"
    """A person was put through."""
    VOICEMAIL = "voicemail"
    """The caller left a message."""
    MISSED = "missed"
    """The caller said nothing, or hung up before an answer."""
    CLOSED = "closed"
    """Outside business hours, and no message was left."""


class TurnState(StrEnum):
    """What became of a turn."""

    WORKING = "working"
    DONE = "done"
    SILENT = "silent"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether nothing is added any more."""
        return self is not TurnState.WORKING


class CallAction(StrEnum):
    """What the assistant wants to happen after its words."""

    LISTEN = "listen"
    HANG_UP = "hang_up"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class CallSeen:
    """A call as any webhook of it shows it.

    Attributes:
        caller: E.164, or what the provider says of a caller without a number.
        at: When the webhook reached us; aware, UTC.
    """

    provider: str
    call_id: str
    caller: str
    called: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CallReport:
    """A provider's word on where a call stands.

    Attributes:
        key: The event's natural key.
        provider_at: When, by the provider's clock, where it says so.
        duration: Of the whole call; known at its end.
    """

    call: CallSeen
    status: CallStatus
    key: str
    provider_at: datetime | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Something that a caller said, at the provider.

    Attributes:
        recording_id: Twilio's RecordingSid.
        url: Where the provider says it is.
        digits: Keys pressed; "hangup" when the caller hung up.
        absent: The provider says that there is no recording after all.
        heard_at: When the first webhook of it reached us.
    """

    call: CallSeen
    turn: int
    recording_id: str
    url: str
    duration: timedelta | None
    digits: str
    voicemail: bool
    absent: bool
    heard_at: datetime


@dataclass(frozen=True, slots=True)
class CallEvent:
    """An event of a call, to be kept as it came.

    Attributes:
        key: Its natural key.
        kind: call, status, recording or continuation.
        payload: What the provider said.
    """

    key: str
    kind: str
    call: CallSeen
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A sentence of an answer.

    Attributes:
        audio_id: None when the provider has to speak it.
    """

    text: str
    audio_id: str | None


@dataclass(frozen=True, slots=True)
class TurnTimings:
    """How long the stages of a turn took; None for those it didn't reach.

    Attributes:
        gap: From the recording's first webhook to the first audio.
    """

    fetch: timedelta | None = None
    transcribe: timedelta | None = None
    first_sentence: timedelta | None = None
    first_audio: timedelta | None = None
    gap: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Once the caller spoke, and what was answered.

    Attributes:
        played: So many parts the caller has heard to their end.
        action: What follows the last part; counts once the state is DONE.
        language: BCP 47, in which the caller is answered.
        recording_id: None when the provider has deleted the recording.
    """

    number: int
    state: TurnState
    voicemail: bool
    transcript: str
    parts: tuple[AnswerPart, ...]
    played: int
    action: CallAction
    language: str
    digits: str
    recording_id: str | None
    recording_duration: timedelta | None
    heard_at: datetime
    timings: TurnTimings
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One telephone call.

    Attributes:
        turns: Oldest first; empty in lists.
    """

    call_id: str
    provider: str
    status: CallStatus
    outcome: CallOutcome | None
    caller: str
    called: str
    language: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    duration: timedelta | None
    turns: tuple[Turn, ...] = ()
