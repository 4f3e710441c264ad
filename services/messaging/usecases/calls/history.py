"""What a caller and the assistant have said to each other so far."""

from collections.abc import Sequence

from services.messaging.domain.call import Call, CallAction, CallOutcome, Turn, TurnState
from services.messaging.domain.keys import TRANSFER_KEY
from services.messaging.ports.speech import Exchange


def exchanges(turns: Sequence[Turn], *, before: int) -> tuple[Exchange, ...]:
    """The conversation before a turn, each answer cut to what the caller has heard of it."""
    return tuple(
        Exchange(turn.transcript, " ".join(part.text for part in turn.parts[: turn.played]))
        for turn in sorted(turns, key=lambda turn: turn.number)
        if turn.number < before and turn.transcript and not turn.voicemail
    )


def is_put_through(call: Call) -> bool:
    """Whether a person was called last, if there is one to be called.

    Whether they answered is told by an event of its own.
    """
    last = max(call.turns, key=_number, default=None)
    return last is not None and (
        last.action is CallAction.TRANSFER or last.digits.startswith(TRANSFER_KEY)
    )


def outcome_of(call: Call, *, closed: bool) -> CallOutcome:
    """What came of a call that has ended, by its turns.

    Args:
        closed: It came outside business hours.
    """
    if call.outcome is CallOutcome.TRANSFERRED:
        return call.outcome
    if any(_is_message(turn) for turn in call.turns):
        return CallOutcome.VOICEMAIL
    if any(_is_answered(turn) for turn in call.turns):
        return CallOutcome.ANSWERED
    return CallOutcome.CLOSED if closed else CallOutcome.MISSED


def _is_message(turn: Turn) -> bool:
    return turn.voicemail and turn.state is not TurnState.SILENT


def _is_answered(turn: Turn) -> bool:
    if turn.voicemail or turn.action is CallAction.TRANSFER or not turn.parts:
        return False
    return turn.state is TurnState.DONE or turn.played > 0


def _number(turn: Turn) -> int:
    return turn.number
