"""What calls need from the store, and the values that cross."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.messaging.domain.call import (
    AnswerPart,
    Call,
    CallAction,
    CallEvent,
    CallOutcome,
    CallReport,
    CallSeen,
    CallStatus,
    Recording,
    TurnState,
    TurnTimings,
)
from services.messaging.ports.reading import ListPosition


@dataclass(frozen=True, slots=True)
class ClaimedTurn:
    """A turn that this process may work on, until its lease ends and somebody else claims it.

    Attributes:
        attempt: Number of this attempt, from 1; tells this claim from others.
        traceparent: The request that brought the recording; "" where that isn't known.
    """

    call_id: str
    provider: str
    number: int
    recording_id: str
    recording_url: str
    voicemail: bool
    heard_at: datetime
    attempt: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class TurnStanding:
    """How far a turn is, for who waits for it.

    Attributes:
        status: Of the call.
        parts: So many sentences of the answer can be played.
    """

    status: CallStatus
    state: TurnState
    digits: str
    parts: int


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls a list shows.

    Attributes:
        number: Only calls from or to it; E.164.
    """

    number: str | None = None
    outcome: CallOutcome | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Part of a list; `next` is None on the last page."""

    calls: tuple[Call, ...]
    next: ListPosition | None


class CallStore(Protocol):
    """Calls and their turns. Every write may come twice, late or before its predecessor.

    Every method raises `UnavailableError` when the database can't be reached. What somebody may
    wait for is announced (see `CallSignal`): a turn's standing.
    """

    async def note(self, events: Sequence[CallEvent]) -> None:
        """Keep events as they came, and store their calls where unknown; known keys are left."""
        ...

    async def seen(self, call: CallSeen) -> None:
        """Store a call unless it is known."""
        ...

    async def report(self, report: CallReport) -> bool:
        """Apply a report, storing the call where it is unknown; True when it ended the call."""
        ...

    async def recorded(self, recording: Recording) -> None:
        """Note what a caller said as a turn, unless it is known; stores an unknown call too.

        The first recording of a turn holds; a later one with another id is left. The turn before
        it counts as heard out.
        """
        ...

    async def silent(self, call: CallSeen, turn: int) -> None:
        """Note a turn in which the caller said nothing, unless the turn is known.

        The turn before it counts as heard out.
        """
        ...

    async def claim_turn(
        self, call_id: str, number: int, *, lease: timedelta
    ) -> ClaimedTurn | None:
        """Take a turn that is to be worked on; None when it is final or somebody else's.

        Parts that an earlier owner left are kept: the caller may be hearing them now.
        """
        ...

    async def renew(self, turn: ClaimedTurn, *, lease: timedelta) -> bool:
        """Hold a claim for that long from now; False when it is lost or the turn final."""
        ...

    async def transcribed(self, turn: ClaimedTurn, transcript: str, language: str) -> bool:
        """Note what was understood; False when the claim is lost or the turn final."""
        ...

    async def add_part(self, turn: ClaimedTurn, part: AnswerPart) -> bool:
        """Add the next sentence of the answer; False when the claim is lost or the turn final."""
        ...

    async def finish_turn(
        self,
        turn: ClaimedTurn,
        state: TurnState,
        *,
        action: CallAction = CallAction.LISTEN,
        timings: TurnTimings | None = None,
        problem: str | None = None,
        outcome_of: Callable[[Call], CallOutcome | None] | None = None,
    ) -> bool:
        """End a turn; False when the claim is lost or it was final before.

        Args:
            outcome_of: What came of the call, by its turns, if that depends on this one. If it
                was said before, it is said anew in the same transaction.
        """
        ...

    async def release_turn(self, turn: ClaimedTurn, *, retry_at: datetime) -> None:
        """Give a claim back; the turn is unfinished from `retry_at` on, for another attempt."""
        ...

    async def give_up_turn(self, call_id: str, number: int, problem: str) -> bool:
        """Make a turn FAILED, whoever works on it: the caller won't wait any longer.

        False when it is final already, or unknown.
        """
        ...

    async def played(self, call_id: str, turn: int, parts: int) -> None:
        """Note that the caller has heard so many parts of an answer; never fewer than before."""
        ...

    async def heard_out(self, call_id: str, *, before: int) -> None:
        """Note that the answer of the last turn before a number was played to its end.

        A caller gets further only after the whole answer; one that was given up was never handed
        out whole, and is left.
        """
        ...

    async def set_outcome(self, call_id: str, outcome: CallOutcome) -> None:
        """Note what came of a call; of several the first of these holds: TRANSFERRED, VOICEMAIL,
        ANSWERED, MISSED, CLOSED."""
        ...

    async def conclude(
        self, call_id: str, outcome_of: Callable[[Call], CallOutcome | None]
    ) -> None:
        """Note what came of a call by its turns as they are now, unless what is known outranks it.

        VOICEMAIL alone is taken back when the turns don't bear it out. The call must be known.
        """
        ...

    async def recording_deleted(self, call_id: str, turn: int) -> None:
        """Forget the provider's recording of a turn."""
        ...

    async def call(self, call_id: str) -> Call:
        """One call with its turns.

        Raises:
            NotFoundError: There is none.
        """
        ...

    async def standing(self, call_id: str, number: int) -> TurnStanding | None:
        """How far a turn is; None where it is unknown. Far cheaper than the whole call."""
        ...

    async def calls(
        self, question: CallFilter, *, limit: int, after: ListPosition | None
    ) -> CallPage:
        """A page of calls that follow a position, newest first."""
        ...

    async def recordings_to_delete(self, *, limit: int) -> Sequence[tuple[str, int, str]]:
        """Final turns whose recording the provider still has: call, turn and recording.

        Voicemails that failed are not among them: the recording is all there is of them.
        """
        ...

    async def unreported_transfers(
        self, *, since: datetime, ended_before: datetime, limit: int
    ) -> Sequence[str]:
        """Calls that have ended without a report on the person whom the caller was to speak to.

        Args:
            since: They began then or later.
        """
        ...

    async def unfinished(self, *, limit: int) -> Sequence[tuple[str, int]]:
        """Turns to be worked on that nobody works on, by call and number, the oldest first.

        What a crash left behind, what nobody has claimed, and what was released once its time
        has come.
        """
        ...


class CallSignal(Protocol):
    """Wakes who waits for a change of a call, in any replica. It may be lost: look again at times.

    The store announces every change of a turn's standing.
    """

    def watching(self, call_id: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set at each change of the call, until the block is left."""
        ...
