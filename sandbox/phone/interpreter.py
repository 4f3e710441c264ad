"""Working through TwiML, verb by verb (https://www.twilio.com/docs/voice/twiml)."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sandbox.message_form import E164
from sandbox.phone.call import PhoneCall
from sandbox.phone.keys import gather
from sandbox.phone.listening import record
from sandbox.phone.session import Session
from sandbox.phone.speaking import languages_of, spoken_seconds
from sandbox.phone.twiml import INVALID_CALLER_ID, UNSPEAKABLE, TwimlError, Verb
from sandbox.phone.webhooks import Document
from sandbox.state import new_sid

_TALK_SECONDS = 30.0
_RING_SECONDS = 5.0
# On a telephone's keys: "anonymous", "blocked", "private", "restricted", "unavailable", "unknown".
_WITHHELD = ("+266696687", "+2562533", "+7748283", "+7378742833", "+86282452253", "+8656696")


@dataclass(frozen=True)
class Next:
    """What is asked next."""

    url: str
    method: str = "POST"
    extra: dict[str, str] = field(default_factory=dict)


async def converse(session: Session, url: str) -> None:
    """Ask and play until a document ends without more to ask, which ends the call.

    Raises:
        TwimlError: Something went wrong; Twilio apologizes.
        HungUpError: Somebody hung up.
    """
    following: Next | None = Next(url)
    while following is not None:
        document = await session.fetch(following.url, following.method, following.extra)
        session.call.status = "in-progress" if not _rejects(document) else session.call.status
        following = await _play(session, document)


def _rejects(document: Document) -> bool:
    return bool(document.verbs) and document.verbs[0].name == "Reject"


async def _play(session: Session, document: Document) -> Next | None:
    for verb in document.verbs:
        match verb.name:
            case "Redirect":
                url = session.resolve(document, verb.text)
                session.note("redirected", url=url)
                return Next(url, verb.attributes.get("method", "POST"))
            case "Hangup":
                session.hang_up("application")
            case "Reject":
                busy = verb.attributes.get("reason") == "busy"
                session.call.status = "busy" if busy else "no-answer"
                return None
            case "Record" | "Gather" | "Dial":
                extra = await _ACTING[verb.name](session, document, verb)
                if extra is not None:
                    return _action(session, document, verb, extra)
            case _:
                await sound(session, document, verb)
    return None


def _action(session: Session, document: Document, verb: Verb, extra: dict[str, str]) -> Next:
    # Without an action the document's own address is asked again.
    url = session.resolve(document, verb.attributes.get("action", document.url))
    return Next(url, verb.attributes.get("method", "POST"), extra)


async def sound(session: Session, document: Document, verb: Verb) -> None:
    """Play, say or pause."""
    loops = min(verb.number("loop", 1) or 1000, 1000)
    if verb.name == "Pause":
        seconds = float(verb.number("length", 1))
        session.note("pausing", seconds=seconds)
        await session.line.pass_time(seconds)
        return
    if verb.name == "Play" and "digits" in verb.attributes:
        return
    for _ in range(loops):
        if verb.name == "Say":
            await _say(session, verb)
        else:
            await _play_file(session, document, verb)


async def _say(session: Session, verb: Verb) -> None:
    voice = verb.attributes.get("voice", "")
    if "he" in languages_of(verb.text) and not voice.startswith("Google.he-IL-"):
        raise TwimlError(UNSPEAKABLE, f"no voice of Twilio's but Google's speaks Hebrew: {voice!r}")
    seconds = spoken_seconds(verb.text)
    session.heard("saying", text=verb.text, seconds=round(seconds, 2))
    await session.play_sound(seconds)


async def _play_file(session: Session, document: Document, verb: Verb) -> None:
    url = session.resolve(document, verb.text)
    audio, status = await session.line.ask(session.audio.get(url), session.background)
    session.heard(
        "playing", url=url, text=audio.title, status=status, seconds=round(audio.seconds, 2)
    )
    await session.play_sound(audio.seconds)


async def _gather(session: Session, document: Document, verb: Verb) -> dict[str, str] | None:
    for inside in verb.children:
        await sound(session, document, inside)
    return await gather(session, verb)


async def _dial(session: Session, _: Document, verb: Verb) -> dict[str, str] | None:
    _check_caller_id(session.call, verb.attributes.get("callerId"))
    number = verb.children[0].text if verb.children else verb.text
    session.heard("dialing", text=number)
    answers = session.scenario.person == "answers"
    rings = _RING_SECONDS if answers else float(verb.number("timeout", 30))
    await session.line.pass_time(rings)
    status = "completed" if answers else session.scenario.person
    seconds = 0.0
    if answers:
        seconds = min(_TALK_SECONDS, float(verb.number("timeLimit", 14400)))
        await session.line.pass_time(seconds)
    session.note("dialed", text=number, status=status, seconds=seconds)
    if "action" not in verb.attributes:
        return None
    extra = {"DialCallStatus": status, "DialCallSid": new_sid("CA")}
    return extra | ({"DialCallDuration": str(round(seconds))} if answers else {})


def _check_caller_id(call: PhoneCall, given: str | None) -> None:
    """See that a number is shown that may be: https://www.twilio.com/docs/api/errors/13214.

    Of validated numbers the sandbox has none but the one that is called.
    """
    shown = call.caller if given is None else given
    if shown not in (call.caller, call.called):
        raise TwimlError(INVALID_CALLER_ID, f"{shown} is neither the calling nor the called number")
    if shown in _WITHHELD or not re.fullmatch(E164, shown, re.ASCII):
        raise TwimlError(INVALID_CALLER_ID, f"{shown} is no number that can be shown")


_ACTING: dict[str, Callable[[Session, Document, Verb], Awaitable[dict[str, str] | None]]] = {
    "Record": record,
    "Gather": _gather,
    "Dial": _dial,
}
