"""What a caller and the assistant have said to each other so far."""

from collections.abc import Sequence

from services.messaging.domain.call import Call, CallAction, CallOutcome, Turn, TurnState
from services.messaging.domain.keys import TRANSFER_KEY
from services.messaging.ports.speech import Exchange
from services.messaging.usecases.calls.rules import CallRules


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


def is_served(call: Call) -> bool:
    """Whether nobody need write to the caller of a call that has ended.

    Who was led to voicemail wasn't served to the end. Whether a message turns out to be silent
    makes no difference: it is found out before or after the caller is written to.
    """
    if call.outcome is CallOutcome.TRANSFERRED:
        return True
    return any(map(_is_answered, call.turns)) and not any(turn.voicemail for turn in call.turns)


def outcome_of(call: Call, *, rules: CallRules) -> CallOutcome:
    """What came of a call that has ended, by its turns."""
    if call.outcome is CallOutcome.TRANSFERRED:
        return call.outcome
    if any(map(is_message, call.turns)):
        return CallOutcome.VOICEMAIL
    if any(map(_is_answered, call.turns)):
        return CallOutcome.ANSWERED
    return CallOutcome.CLOSED if rules.is_closed(call) else CallOutcome.MISSED


def is_message(turn: Turn) -> bool:
    """Whether a turn is a message, for all that is known."""
    return turn.voicemail and turn.state is not TurnState.SILENT


def _is_answered(turn: Turn) -> bool:
    if turn.voicemail or turn.action is CallAction.TRANSFER or not turn.parts:
        return False
    return turn.state is TurnState.DONE or turn.played > 0


def _number(turn: Turn) -> int:
    return turn.number
