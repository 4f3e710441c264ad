"""What came of calls, within the caller's transaction: the same in whatever order it is told."""

from collections.abc import Callable, Sequence

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.call import Call, CallOutcome
from services.messaging.store.call_models import CallRow
from services.messaging.store.call_reading import read_call
from services.messaging.store.call_rows import lock_call

# A message is to be found among the messages, whatever was answered before.
_OUTCOMES: Sequence[CallOutcome] = (
    CallOutcome.TRANSFERRED,
    CallOutcome.VOICEMAIL,
    CallOutcome.ANSWERED,
    CallOutcome.MISSED,
    CallOutcome.CLOSED,
)


async def note_outcome(connection: AsyncConnection, call_id: str, outcome: CallOutcome) -> None:
    """Note what came of a call, unless what is known of it outranks that."""
    outranked = [one.value for one in CallOutcome if _outranks(outcome, one)]
    await connection.execute(
        update(CallRow)
        .where(
            CallRow.provider_call_id == call_id,
            or_(CallRow.outcome.is_(None), CallRow.outcome.in_(outranked)),
        )
        .values(outcome=outcome.value)
    )


async def conclude(
    connection: AsyncConnection,
    call_id: str,
    outcome_of: Callable[[Call], CallOutcome | None],
    *,
    again: bool = False,
) -> None:
    """Note what came of a call by its turns as they are now; the call must be known.

    The call stays locked, so whoever concludes last has seen every turn that was told of, and
    every message that was found silent before.

    Args:
        again: Only if something was noted before.
    """
    row_id = await lock_call(connection, call_id)
    call = await read_call(connection, call_id)
    if again and call.outcome is None:
        return
    outcome = outcome_of(call)
    # A message is one only until it is found silent.
    replaced = call.outcome in (None, CallOutcome.VOICEMAIL)
    if not replaced and not (outcome and call.outcome and _outranks(outcome, call.outcome)):
        return
    if outcome is not call.outcome:
        value = None if outcome is None else outcome.value
        await connection.execute(update(CallRow).where(CallRow.id == row_id).values(outcome=value))


def _outranks(one: CallOutcome, other: CallOutcome) -> bool:
    return _OUTCOMES.index(one) < _OUTCOMES.index(other)
