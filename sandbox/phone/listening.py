"""Recording what the caller says: <Record>."""

import asyncio
from dataclasses import dataclass

from sandbox.phone.line import HungUpError
from sandbox.phone.recordings import Recording
from sandbox.phone.scenario import Turn
from sandbox.phone.session import Session
from sandbox.phone.twiml import Verb
from sandbox.phone.wav import RATE, silence, speech
from sandbox.phone.webhooks import Document

_BEEP_SECONDS = 0.5
_REACTION_SECONDS = 0.3
_KEY_SECONDS = 0.5
_MOST_SECONDS = 3600
_ALL_KEYS = "1234567890*#"


@dataclass(frozen=True)
class _Said:
    """What came of a turn.

    Attributes:
        digits: The key that ended it, or "hangup".
    """

    samples: bytes
    digits: str = ""


async def record(session: Session, document: Document, verb: Verb) -> dict[str, str] | None:
    """Listen; None when the recording is empty, and the next verb follows.

    Raises:
        HungUpError: The caller has hung up. If they said something before, the action was asked.
    """
    if verb.flag("playBeep", default=True):
        session.heard("beep", seconds=_BEEP_SECONDS)
        await session.line.pass_time(_BEEP_SECONDS)
    turn = session.next_turn()
    if turn is None:
        await session.line.pass_time(_REACTION_SECONDS)
        session.hang_up("caller")
        return None
    session.silent_documents = 0
    patience = float(verb.number("timeout", 5))
    longest = float(min(verb.number("maxLength", _MOST_SECONDS), _MOST_SECONDS))
    if not turn.speaks and not turn.digits:
        session.note("silent", seconds=min(patience, longest))
        await session.line.pass_time(min(patience, longest))
        if turn.hang_up:
            session.hang_up("caller")
        return None
    said = await _listen(session, turn, verb, patience, longest)
    trims = verb.attributes.get("trim") == "trim-silence"
    samples = _without_end(said.samples, patience) if trims and not said.digits else said.samples
    text = None if turn.wav or not turn.speaks else turn.text
    recording = session.recordings.keep(session.call.sid, samples, text, session.now())
    session.ended_speaking = session.line.now
    session.note(
        "recorded", sid=recording.sid, url=recording.url, seconds=recording.seconds, text=turn.text
    )
    extra = {
        "RecordingUrl": recording.url,
        "RecordingSid": recording.sid,
        "RecordingDuration": str(recording.seconds),
    }
    if said.digits:
        extra["Digits"] = said.digits
    await _call_back(session, document, verb, recording)
    if said.digits == "hangup":
        await _farewell(session, document, verb, extra)
    return extra


async def _listen(
    session: Session, turn: Turn, verb: Verb, patience: float, longest: float
) -> _Said:
    """Let the caller speak, press keys, hang up or fall silent.

    Args:
        patience: Seconds of silence that end it.
        longest: Seconds that it lasts at most.
    """
    started = session.line.now
    samples = silence(_REACTION_SECONDS) + _voice(turn, longest - _REACTION_SECONDS)
    try:
        if turn.speaks:
            seconds = round(len(samples) / 2 / RATE, 2)
            session.note("speaking", text=turn.text or "(a file)", seconds=seconds)
        await session.line.pass_time(len(samples) / 2 / RATE)
        if turn.hang_up:
            session.line.hang_up()
            return _Said(samples, "hangup")
        if turn.digits:
            session.note("pressing", text=turn.digits)
            samples += silence(_KEY_SECONDS)
            await session.line.pass_time(_KEY_SECONDS)
            finish = verb.attributes.get("finishOnKey", _ALL_KEYS)
            if key := next((key for key in turn.digits if key in finish), ""):
                return _Said(samples, key)
        rest = min(patience, max(0.0, longest - len(samples) / 2 / RATE))
        samples += silence(rest)
        await session.line.pass_time(rest)
    except HungUpError:
        return _Said(samples[: round((session.line.now - started) * RATE) * 2], "hangup")
    return _Said(samples)


def _voice(turn: Turn, longest: float) -> bytes:
    samples = turn.samples()
    if samples is None:
        samples = speech(turn.seconds())
    return samples[: max(0, round(longest * RATE)) * 2]


def _without_end(samples: bytes, seconds: float) -> bytes:
    return samples[: max(RATE, len(samples) - round(seconds * RATE) * 2)]


async def _call_back(
    session: Session, document: Document, verb: Verb, recording: Recording
) -> None:
    """Arrange for recordingStatusCallback; returns at once unless it comes before the action."""
    url = verb.attributes.get("recordingStatusCallback")
    wanted = verb.attributes.get("recordingStatusCallbackEvent", "completed").split()
    if url is None or recording.status not in wanted:
        return
    fault = session.faults.strike(session.faults.now.recording_callback)
    if fault and fault.when == "never":
        return
    seconds = session.recordings.callback_seconds + (fault.seconds if fault else 0)
    copies = fault.copies if fault else 1

    async def tell(after: float) -> None:
        await asyncio.sleep(after)
        told = await session.webhooks.tell(
            session.resolve(document, url),
            session.webhooks.recording(session.call, recording),
            copies,
        )
        session.note("recording_callback", status=told[-1].response_status, sid=recording.sid)

    if fault and fault.when == "before":
        await tell(0)
    else:
        session.background(asyncio.ensure_future(tell(seconds)))


async def _farewell(
    session: Session, document: Document, verb: Verb, extra: dict[str, str]
) -> None:
    """The last request of a call that the caller has ended; its answer plays to nobody."""
    url = session.resolve(document, verb.attributes.get("action", document.url))
    session.call.status = "completed"
    parameters = session.webhooks.base(session.call) | extra
    told = await session.webhooks.tell(url, parameters)
    session.note("webhook", url=url, status=told[-1].response_status)
    raise HungUpError
