"""Answers callers: asks messaging what they hear next, and never leaves them without words."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from switchboard.voice.v1 import script_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb
from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceStub

from services.common.journal.events import JournalEvent
from services.common.refusals import LogLimiter
from services.webhook.answers import EMPTY_TWIML
from services.webhook.playable import Playable
from services.webhook.twiml import TwimlRenderer
from services.webhook.voice_routes import MAX_TURN, question
from services.webhook.voicemail import Voicemail, Words

if TYPE_CHECKING:
    from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceAsyncStub

log = structlog.get_logger(__name__)

VOICEMAIL_PATH: Final = "/voice/voicemail"

_RETRY_SECONDS: Final = 0.25
# Between what is held and the deadline of the call that holds it.
_SPARE_SECONDS: Final = 1.0
_HUNG_UP: Final = "hangup"
# What a call to messaging ends with when it stops, dies, or has begun to listen but not to answer.
_AWAY: Final = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    )
)


class VoiceResponder:
    """A `Responder` for the webhooks of calls.

    Twilio gives a webhook up after 15 s, with all further tries in them
    (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides). So a script that is
    waited for is held for `hold_seconds`, counted from the request's first byte, and messaging has
    a second more to hand it over: two edges may die one after the other at the end of that.

    Args:
        public_host: The origin under which Twilio reaches us.
        answer_seconds: How long messaging may take over a new call.
        hold_seconds: How long any other caller waits. So long, too, messaging that can't be
            reached is tried again.
        monotonic: The clock by which the ingress measures, in seconds.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        public_host: str,
        voicemail: Voicemail,
        playable: Playable,
        registry: CollectorRegistry,
        answer_seconds: float = 3.0,
        hold_seconds: float = 4.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stub: VoiceServiceAsyncStub = VoiceServiceStub(channel)
        self._origin = public_host
        self._renderer = TwimlRenderer(public_host)
        self._voicemail = voicemail
        self._playable = playable
        self._answer_seconds = answer_seconds
        self._hold_seconds = hold_seconds
        self._monotonic = monotonic
        self._log_limiter = LogLimiter(10.0, monotonic)
        self._answers = Counter(
            "switchboard_call_answers",
            "Callers answered, by what had happened and who said what follows",
            ["after", "source"],
            registry=registry,
        )
        self._seconds = Histogram(
            "switchboard_call_answer_seconds",
            "Time from a call's webhook to what the caller hears next",
            ["after"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 12),
            registry=registry,
        )
        # From the start at 0: the first voicemail is to be seen as a change.
        for event in pb.NextStepRequest.DESCRIPTOR.oneofs_by_name["event"].fields:
            for source in ("messaging", "voicemail"):
                self._answers.labels(event.name, source)

    async def respond(self, event: JournalEvent, began: float) -> bytes:
        """TwiML: what messaging says, or else the built-in voicemail."""
        asked = question(event)
        after = asked.WhichOneof("event") or ""
        if asked.recorded.digits == _HUNG_UP:
            self._answers.labels(after, "nobody").inc()
            return EMPTY_TWIML
        source = "messaging"
        try:
            script = await self._script(asked, began)
            script = await self._playable.only(script)
            twiml = self._renderer.render(script, caller=asked.caller, called=asked.called)
        except Exception as error:  # noqa: BLE001 - a caller must hear something whatever fails
            source = "edge"
            self._log(after, error)
            words, turn = _words_for(asked, error)
            twiml = self.voicemail(words, turn=turn)
        self._answers.labels(after, source).inc()
        self._seconds.labels(after).observe(self._monotonic() - began)
        return twiml

    def without_event(self, event: JournalEvent) -> str:
        """The address of the voicemail for what `event` would have asked."""
        words, turn = _voicemail_for(question(event))
        return f"{self._origin}{VOICEMAIL_PATH}/{words}?turn={turn}"

    def voicemail(self, words: Words, *, turn: int) -> bytes:
        """TwiML that needs nobody.

        Args:
            turn: The number that the caller's message gets.
        """
        return self._renderer.render(self._voicemail.script(words, turn=turn))

    async def _script(self, asked: pb.NextStepRequest, began: float) -> script_pb2.Script:
        """What messaging says.

        Raises:
            grpc.aio.AioRpcError: Nothing, in time or at all.
            ValueError: It has nothing to say.
        """
        is_new = asked.HasField("incoming")
        give_up = began + (self._answer_seconds if is_new else self._hold_seconds)
        while True:
            now = self._monotonic()
            seconds = max(_SPARE_SECONDS, give_up - now)
            if not is_new:
                hold = max(0.0, give_up - now)
                asked.hold_ms = int(hold * 1000)
                seconds = hold + _SPARE_SECONDS
            try:
                response = await self._stub.NextStep(asked, timeout=seconds)
                break
            except grpc.aio.AioRpcError as error:
                # A replica that stops or starts; asking again gives the same steps.
                away = error.code() is grpc.StatusCode.UNAVAILABLE
                if not away or self._monotonic() + _RETRY_SECONDS >= give_up:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)
        if not any(step.WhichOneof("step") for step in response.script.steps):
            raise ValueError("messaging gave a script without a step that is known here")
        return response.script

    def _log(self, after: str, error: Exception) -> None:
        expected = isinstance(error, grpc.aio.AioRpcError | ValueError)
        kind = (
            error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
        )
        held_back = self._log_limiter.suppressed("expected" if expected else "unexpected")
        if held_back is not None:
            log.error(
                "the edge speaks to a caller, because messaging didn't say what follows",
                after=after,
                error=kind,
                held_back=held_back,
                exc_info=None if expected else error,
            )


def _words_for(asked: pb.NextStepRequest, error: Exception) -> tuple[Words, int]:
    """What to say instead of messaging, and the number of the turn that it is about."""
    away = isinstance(error, grpc.aio.AioRpcError) and error.code() in _AWAY
    if away and asked.HasField("recorded") and not asked.recorded.voicemail:
        # What the caller said is in the journal: messaging may be back in time to answer it.
        return Words.MOMENT, asked.recorded.turn
    return _voicemail_for(asked)


def _voicemail_for(asked: pb.NextStepRequest) -> tuple[Words, int]:
    """What to say, and the number that a message gets."""
    match asked.WhichOneof("event"):
        case "recorded" if asked.recorded.voicemail:
            return Words.GOODBYE, asked.recorded.turn
        case "recorded":
            turn = asked.recorded.turn
        case "silent":
            turn = asked.silent.turn
        case "played":
            turn = asked.played.turn
        case "dialed" if asked.dialed.answered:
            return Words.GOODBYE, asked.dialed.turn
        case "dialed":
            turn = asked.dialed.turn
        case _:
            return Words.GREETING, 1
    return Words.APOLOGY, min(turn + 1, MAX_TURN)
