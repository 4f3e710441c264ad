"""Keys that the caller presses: <Gather>."""

from sandbox.phone.session import Session
from sandbox.phone.twiml import Verb

_KEY_SECONDS = 0.5


async def gather(session: Session, verb: Verb) -> dict[str, str] | None:
    """Wait for keys or words; None when there are none, and the next verb follows.

    Raises:
        HungUpError: The caller has hung up.
    """
    turn = session.next_turn()
    if turn is None:
        session.hang_up("caller")
        return None
    wanted = verb.attributes.get("input", "dtmf")
    if "speech" in wanted and turn.speaks:
        session.heard("speaking", text=turn.text, seconds=round(turn.seconds(), 2))
        await session.line.pass_time(turn.seconds())
        if turn.hang_up:
            session.hang_up("caller")
        session.ended_speaking = session.line.now
        return {"SpeechResult": turn.text, "Confidence": "0.9"}
    digits = _pressed(turn.digits, verb) if "dtmf" in wanted else ""
    if not digits:
        seconds = float(verb.number("timeout", 5))
        session.note("silent", seconds=seconds)
        await session.line.pass_time(seconds)
        return {"Digits": ""} if verb.flag("actionOnEmptyResult", default=False) else None
    session.note("pressing", text=turn.digits)
    await session.line.pass_time(_KEY_SECONDS * len(turn.digits))
    session.ended_speaking = session.line.now
    return {"Digits": digits}


def _pressed(digits: str, verb: Verb) -> str:
    """The keys up to the one that finishes, or the number wanted."""
    finish = verb.attributes.get("finishOnKey", "#")
    for place, key in enumerate(digits):
        if key in finish:
            return digits[:place]
    return digits[: verb.number("numDigits", len(digits) or 1)]
