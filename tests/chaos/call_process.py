"""The steps of a telephone call at which a process dies, see `process`.

A step that comes to several kinds of events has variants, of which one is armed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from tests.chaos.dying import around, reached, stepping, wrap

_KINDS = ("voice_call", "voice_recording", "voice_continuation", "voice_status")
_QUESTIONS = ("incoming", "recorded", "played", "silent")
_PATHS = ("incoming_call", "handle_recording", "continue", "call_status")
_FOLDED = ("seen", "recorded", "silent", "played", "report")

VARIANTS: Mapping[str, Sequence[str]] = {
    "webhook-call-verified": _KINDS,
    "webhook-call-published": _KINDS,
    "webhook-call-confirmed": _KINDS,
    "webhook-call-asked": _QUESTIONS,
    "webhook-call-told": _QUESTIONS,
    "webhook-call-rendered": _QUESTIONS,
    "webhook-call-answered": _PATHS,
    "messaging-call-folded": _FOLDED,
}


def webhook() -> None:
    """Wrap what webhook does about calls."""
    from services.common.journal.publisher import JournalPublisher
    from services.webhook import audio
    from services.webhook.ingress import WebhookIngress
    from services.webhook.spill import Spill
    from services.webhook.voice import VoiceResponder
    from services.webhook.voice_routes import question
    from tests.chaos.edge_steps import after_answer, around_publishing

    def kind(step: str) -> Callable[..., str]:
        return lambda event: f"{step}.{event.kind.name.lower()}"

    def about(step: str) -> Callable[..., str]:
        return lambda asked: f"{step}.{asked.WhichOneof('event')}"

    verified, published, confirmed = (
        kind(f"webhook-call-{one}") for one in ("verified", "published", "confirmed")
    )
    around_publishing(verified, confirmed)
    stepping(JournalPublisher, "_asked", after=lambda _, __, event, *___: published(event))
    asked, told, rendered = (about(f"webhook-call-{one}") for one in ("asked", "told", "rendered"))
    stepping(
        VoiceResponder,
        "_script",
        lambda _, question, __: asked(question),
        lambda _, __, question, ___: told(question),
    )
    stepping(VoiceResponder, "respond", after=lambda _, __, event, ___: rendered(question(event)))

    def answered(path: str) -> str:
        return "webhook-call-answered." + path.rpartition("/")[2]

    stepping(WebhookIngress, "__call__", after=lambda _, __, scope, *___: answered(scope["path"]))
    after_answer(answered)

    def spilling(step: str, event: Any) -> str:
        return step if event.kind.name.startswith("VOICE_") else ""

    stepping(
        Spill,
        "put",
        lambda _, event: spilling("webhook-call-unspilled", event),
        lambda _, __, event: spilling("webhook-call-spilled", event),
    )
    answer = audio._answer

    def answering(*arguments: Any) -> Any:
        reached("webhook-call-audio")
        return answer(*arguments)

    wrap(audio, "_answer", answering)


def messaging() -> None:
    """Wrap what messaging does about calls."""
    from nats.aio.msg import Msg

    from services.common.audio import AudioBucket
    from services.messaging.consumers.durable import JournalConsumer
    from services.messaging.providers.twilio.recordings import TwilioRecordings
    from services.messaging.store.calls import SqlCallStore
    from services.messaging.usecases.calls.missed import MissedCallReply
    from services.messaging.usecases.calls.next_step import NextStep
    from services.messaging.usecases.calls.retention import DeleteRecordings
    from services.messaging.usecases.calls.settling import SettleCalls
    from services.messaging.usecases.calls.understanding import Understanding

    stepping(
        JournalConsumer,
        "_fetch",
        after=lambda found, consumer: (
            "messaging-call-fetched" if found and consumer._durable.name == "voice" else ""
        ),
    )
    for name in _FOLDED:
        around(SqlCallStore, name, after=f"messaging-call-folded.{name}")
    around(SqlCallStore, "conclude", after="messaging-call-outcome")
    around(MissedCallReply, "__call__", after="messaging-call-missed")
    around(SqlCallStore, "note", after="messaging-call-kept")
    stepping(
        Msg,
        "ack",
        after=lambda _, event: (
            "messaging-call-acknowledged" if event.subject.startswith("ingest.voice.") else ""
        ),
    )
    around(NextStep, "__call__", "messaging-call-asked", "messaging-call-decided")
    stepping(
        SqlCallStore, "claim_turn", after=lambda turn, *_: "messaging-turn-claimed" if turn else ""
    )
    around(TwilioRecordings, "fetch", after="messaging-turn-fetched")
    around(Understanding, "hear", after="messaging-turn-heard")
    around(SqlCallStore, "transcribed", after="messaging-turn-noted")
    around(AudioBucket, "put", "messaging-turn-rendered", "messaging-turn-spoken")
    around(SqlCallStore, "add_part", after="messaging-turn-part")
    around(SqlCallStore, "finish_turn", "messaging-turn-answered", "messaging-turn-finished")
    around(TwilioRecordings, "delete", after="messaging-recording-deleted")
    around(SqlCallStore, "recording_deleted", after="messaging-recording-forgotten")
    # They have time; here somebody waits.
    _hurry(DeleteRecordings, poll_seconds=1.0)
    _hurry(SettleCalls, poll_seconds=1.0, patience=timedelta(seconds=10))


def _hurry(owner: Any, **named: Any) -> None:
    original = owner.__init__
    wrap(owner, "__init__", lambda *given, **also: original(*given, **also, **named))
