"""Putting the parts of telephone calls together; only `__main__` does so."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.common.audio import AudioBucket, BucketConfig
from services.common.lifecycle import Loop, after, spare_collector
from services.common.settings import secret_list, split_list
from services.common.tracing import Tracing
from services.messaging.consumers.call_signal import NatsCallSignal
from services.messaging.consumers.voice import voice_consumer
from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api.voice_servicer import VoiceServicer
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.ports.speech import Synthesizer, Talker, Transcriber
from services.messaging.providers.twilio import voice_webhooks
from services.messaging.providers.twilio.recordings import TwilioRecordings
from services.messaging.providers.twilio.webhooks import PROVIDER
from services.messaging.settings import MessagingSettings
from services.messaging.speech_settings import voice_names
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.missed import MissedCallReply
from services.messaging.usecases.calls.next_step import NextStep
from services.messaging.usecases.calls.prompts import Prompts
from services.messaging.usecases.calls.receive import ReceiveCalls
from services.messaging.usecases.calls.retention import DeleteRecordings
from services.messaging.usecases.calls.settling import SettleCalls
from services.messaging.usecases.calls.speaking import Speaker
from services.messaging.usecases.calls.take_in import TakeInCalls
from services.messaging.usecases.calls.turn import Answering
from services.messaging.usecases.calls.turn_work import TurnWork
from services.messaging.usecases.calls.understanding import Understanding
from services.messaging.usecases.calls.worker import TurnWorker
from services.messaging.usecases.send import SendMessage
from services.messaging.usecases.vendors import NotedTalker, NotedTranscriber, VendorRecord

# Imported where they are used: these take a third of this process's memory.
if TYPE_CHECKING:
    import openai

    from services.messaging.speech.model_dates import ModelDates

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Voice:
    """What messaging runs for calls.

    Attributes:
        loops: Endless; each is to be run.
        vendors: How those are that understand, answer and speak.
    """

    servicer: VoiceServicer
    loops: Sequence[Loop]
    vendors: Callable[[], Sequence[ProviderStatus]]


@dataclass(frozen=True, slots=True)
class _Vendors:
    """What is configured for understanding, answering and speaking."""

    transcriber: Transcriber | None
    talker: Talker | None
    synthesizers: Sequence[Synthesizer]
    model_dates: "ModelDates | None"
    records: Sequence[VendorRecord] = ()


def wire_voice(
    settings: MessagingSettings,
    *,
    client: Client,
    database: Database,
    send: SendMessage,
    addresses: ContactAddresses,
    streams_ready: asyncio.Event,
    closing: contextlib.AsyncExitStack,
    registry: CollectorRegistry,
    clock: Clock,
    tracing: Tracing,
) -> Voice:
    """Everything of calls, made inside the event loop.

    Args:
        client: May still be connecting.
        streams_ready: Set when the journal's streams are there.
        closing: Gets what is to be closed.
    """
    signal = NatsCallSignal(client)
    store = SqlCallStore(database, clock, on_change=signal.announce)
    metrics = CallMetrics(registry)
    vendors = _vendors(settings, closing, registry, clock)
    rules = settings.call_rules(answers=vendors.talker is not None)
    retention = timedelta(days=settings.audio_retention_days)
    speaker = Speaker(
        AudioBucket(client, config=BucketConfig(retention, settings.jetstream_replicas)),
        vendors.synthesizers,
        clock=clock,
        registry=registry,
    )
    prompts = Prompts(
        speaker.speak,
        language=settings.voice_language,
        own_texts=settings.own_phrases(),
        retention=retention,
    )
    recordings = TwilioRecordings(
        account_sid=settings.twilio_account_sid,
        auth_token=SecretStr(secret_list(settings.twilio_auth_token)[0]),
        base_url=settings.twilio_api_base_url,
        max_bytes=settings.recording_max_bytes,
        timeout_seconds=settings.recording_timeout_seconds,
    )
    closing.push_async_callback(recordings.close)
    work = TurnWork(
        store,
        signal,
        Understanding({PROVIDER: recordings}, vendors.transcriber),
        Answering(vendors.talker, speaker.speak, clock=clock) if vendors.talker else None,
        rules,
        clock=clock,
        metrics=metrics,
    )
    worker = TurnWorker(
        store,
        work,
        rules,
        clock=clock,
        metrics=metrics,
        concurrency=settings.voice_concurrency,
        tracing=tracing,
    )
    receive = ReceiveCalls(
        store,
        rules,
        on_turn=worker.wake,
        missed=MissedCallReply(send, settings.missed_call_reply)
        if settings.missed_call_reply
        else None,
        clock=clock,
    )
    consumer = voice_consumer(
        client,
        TakeInCalls(store, receive),
        {PROVIDER: voice_webhooks},
        registry=registry,
        tracing=tracing,
    )
    settle = SettleCalls(store, receive, clock=clock)
    loops: list[Loop] = [signal.run, worker.run, settle.run, after(streams_ready, consumer.run)]
    if vendors.synthesizers:
        loops.append(after(streams_ready, prompts.run))
    if vendors.talker is not None:
        loops.append(_warmed_up)
    if settings.recording_retention == "none":
        loops.append(DeleteRecordings(store, recordings).run)
    if vendors.model_dates:
        loops.append(vendors.model_dates.run)
    return Voice(
        servicer=VoiceServicer(
            NextStep(store, signal, prompts, rules, clock=clock, metrics=metrics),
            store,
            addresses=addresses,
            providers=(PROVIDER,),
            clock=clock,
        ),
        loops=loops,
        vendors=lambda: [
            *(record.status() for record in vendors.records),
            *(replace(one, name=f"speech_{one.name}") for one in speaker.vendors()),
        ],
    )


def _vendors(
    settings: MessagingSettings,
    closing: contextlib.AsyncExitStack,
    registry: CollectorRegistry,
    clock: Clock,
) -> _Vendors:
    client = None
    if settings.openai_api_key is None:
        log.info("no OPENAI_API_KEY: callers are asked to leave a message")
    else:
        from services.messaging.openai_client import open_client

        client = open_client(api_key=settings.openai_api_key, base_url=settings.openai_base_url)
        closing.push_async_callback(client.close)
    model = settings.voice_model or settings.openai_model
    synthesizers = _synthesizers(settings, client, closing)
    if not synthesizers:
        log.info("no vendor of speech: the provider of the call speaks")
    if client is None:
        return _Vendors(None, None, synthesizers, None)
    from services.messaging.assistant.voice_talker import VoiceTalker
    from services.messaging.speech.model_dates import ModelDates
    from services.messaging.speech.openai_transcriber import OpenAITranscriber

    transcription = VendorRecord("transcription", clock)
    assistant = VendorRecord("call_assistant", clock)
    return _Vendors(
        transcriber=NotedTranscriber(
            OpenAITranscriber(
                client,
                model=settings.openai_transcribe_model,
                timeout_seconds=settings.openai_transcribe_timeout_seconds,
                keywords=split_list(settings.voice_keywords),
            ),
            transcription,
        ),
        talker=NotedTalker(
            VoiceTalker(
                client,
                model=model,
                persona=settings.voice_persona,
                can_transfer=settings.voice_transfer_to is not None,
                timeout_seconds=settings.voice_answer_timeout_seconds,
                reasoning_effort=settings.voice_reasoning_effort,
            ),
            assistant,
        ),
        synthesizers=synthesizers,
        records=(transcription, assistant),
        model_dates=ModelDates(
            client,
            [
                settings.openai_model,
                model,
                settings.openai_transcribe_model,
                settings.openai_speech_model,
            ],
            clock=clock,
            registry=registry,
        ),
    )


def _synthesizers(
    settings: MessagingSettings,
    client: "openai.AsyncOpenAI | None",
    closing: contextlib.AsyncExitStack,
) -> Sequence[Synthesizer]:
    """Who speaks, in order of preference."""
    found: list[Synthesizer] = []
    if settings.google_tts_sa_json is not None:
        from services.messaging.speech.google_speech import GoogleSpeech

        google = GoogleSpeech(
            settings.google_tts_sa_json,
            base_url=settings.google_tts_api_base_url,
            voices=voice_names(settings.google_tts_voices),
            speaking_rate=settings.google_tts_speaking_rate,
            timeout_seconds=settings.speech_timeout_seconds,
        )
        closing.push_async_callback(google.close)
        found.append(google)
    if settings.openai_speech_base_url is not None:
        from services.messaging.openai_client import open_client

        # The SDK wants a key, and such servers mostly none.
        key = settings.openai_speech_api_key or SecretStr("none")
        client = open_client(api_key=key, base_url=settings.openai_speech_base_url)
        closing.push_async_callback(client.close)
    if client is not None:
        from services.messaging.speech.openai_speech import OpenAISpeech

        found.append(
            OpenAISpeech(
                client,
                model=settings.openai_speech_model,
                voice=settings.openai_speech_voice,
                timeout_seconds=settings.speech_timeout_seconds,
            )
        )
    return found


async def _warmed_up() -> None:
    from services.messaging.warm_up import warm_up

    try:
        await warm_up()
        spare_collector()
    except Exception:
        log.exception("the first answer of this process will be slow")
    # Nothing else to do, and a loop has no end.
    await asyncio.Event().wait()
