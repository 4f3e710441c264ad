"""`python -m services.webhook`: the edge."""

import asyncio
import contextlib

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.common.audio import AudioBucket
from services.common.grpc_client import open_channel
from services.common.http_server import serving_http
from services.common.journal.bundles import Bundles
from services.common.journal.client import NatsClient
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import keep_connected
from services.common.lifecycle import run_service, run_until_stopped, spare_collector
from services.common.metrics import process_registry, watch_event_loop
from services.common.settings import split_list
from services.common.tracing import Tracing, tracing
from services.webhook.api.app import build_api
from services.webhook.api.keys import ApiKeys
from services.webhook.api.limits import HeldRequests
from services.webhook.api.messaging import Messaging
from services.webhook.app import Edge
from services.webhook.audio import audio_router
from services.webhook.audio_cache import AudioCache
from services.webhook.ingress import WebhookIngress
from services.webhook.internal import build_internal
from services.webhook.messaging_probe import MessagingProbe
from services.webhook.playable import Playable
from services.webhook.routes import WHATSAPP_ROUTES
from services.webhook.settings import WebhookSettings
from services.webhook.signature import SignatureVerifier
from services.webhook.spill import Spill
from services.webhook.voice import VoiceResponder
from services.webhook.voice_routes import voice_routes
from services.webhook.voicemail import Voicemail
from services.webhook.voicemail_page import voicemail_router

log = structlog.get_logger(__name__)


async def serve(settings: WebhookSettings, stop: asyncio.Event) -> None:
    """Run the edge until `stop` is set."""
    async with tracing(settings, "webhook") as traces:
        await _serve(settings, stop, traces)


async def _serve(settings: WebhookSettings, stop: asyncio.Event, traces: Tracing) -> None:
    registry = process_registry("webhook")
    client = NatsClient()
    streams_ready = asyncio.Event()
    bundles = Bundles(client)
    journal = JournalPublisher(client, bundles=bundles, streams_ready=streams_ready)
    spill = Spill(settings.spill_path, max_bytes=settings.spill_max_bytes)
    _watch_events(bundles, spill, registry)
    bypass = settings.bypass_twilio_signature
    channel = open_channel(settings.messaging_grpc_address, settings.messaging_token())
    messaging = MessagingProbe(channel)
    audio = AudioCache(AudioBucket(client).get, max_bytes=settings.audio_cache_bytes)
    voice = VoiceResponder(
        channel,
        public_host=settings.public_host,
        voicemail=Voicemail(settings.voice_language),
        playable=Playable(audio, lambda: client.is_connected),
        registry=registry,
    )
    ingress = WebhookIngress(
        routes=(*WHATSAPP_ROUTES, *voice_routes(voice)),
        verifier=None
        if bypass
        else SignatureVerifier(
            settings.public_host, settings.auth_tokens(), settings.shared_keys()
        ),
        journal=journal,
        spill=spill,
        registry=registry,
        failures_per_minute=settings.signature_failures_per_minute,
        trusted_proxies=settings.trusted_proxies,
        tracing=traces,
    )
    held = HeldRequests(settings.api_held_requests)
    api = build_api(
        messaging=Messaging(channel),
        keys=ApiKeys(settings.named_api_keys()),
        held=held,
        registry=registry,
        cors_origins=split_list(settings.cors_origins),
        requests_per_minute=settings.api_requests_per_minute,
        failures_per_minute=settings.api_key_failures_per_minute,
        tracing=traces,
    )
    app = Edge(
        ingress=ingress,
        api=api,
        routers=[audio_router(audio, registry=registry), voicemail_router(voice)],
        trusted_proxies=settings.trusted_proxies,
    )
    loops = [
        keep_connected(
            client,
            settings.nats_url.get_secret_value(),
            name="switchboard-webhook",
            replicas=settings.jetstream_replicas,
            max_bytes=settings.journal_max_bytes,
            owner=False,
            ready=streams_ready,
        ),
        spill.forward(journal),
        spill.watch(),
        messaging.run(),
        watch_event_loop(registry),
    ]
    if bypass:
        loops.append(_warn_of_bypass())
    internal = build_internal(
        journal,
        spill,
        messaging,
        registry=registry,
        settings=settings,
        signatures_bypassed=bypass,
    )
    await spill.open()
    try:
        async with contextlib.AsyncExitStack() as serving:
            port = await serving.enter_async_context(
                serving_http(
                    app,
                    host=settings.webhook_host,
                    port=settings.webhook_port,
                    max_connections=settings.webhook_max_connections,
                    # A span belongs to a task.
                    taker=ingress if settings.otel_exporter_otlp_endpoint is None else None,
                )
            )
            # The last to open and the first to close: it says that the other is there.
            if settings.metrics_port is not None:
                await serving.enter_async_context(
                    serving_http(
                        internal,
                        host=settings.metrics_host,
                        port=settings.metrics_port,
                        drain_seconds=1,
                    )
                )
            log.info("webhook is ready", port=port)
            spare_collector()
            # Streams end first: the server waits for every open request.
            with contextlib.closing(held):
                await run_until_stopped(stop, *loops)
    finally:
        await channel.close()
        await journal.close()
        await spill.close()
        await client.close()


def _watch_events(bundles: Bundles, spill: Spill, registry: CollectorRegistry) -> None:
    Gauge(
        "switchboard_bundled_events",
        "Events that were acknowledged together and aren't in the journal one by one yet",
        registry=registry,
    ).set_function(lambda: bundles.waiting)
    Gauge(
        "switchboard_spill_events", "Events waiting on the local disk", registry=registry
    ).set_function(lambda: spill.events)
    Gauge(
        "switchboard_spill_bytes", "Bytes of events waiting on the local disk", registry=registry
    ).set_function(lambda: spill.bytes)
    Gauge(
        "switchboard_spill_accepting", "Whether the local disk takes events", registry=registry
    ).set_function(lambda: spill.accepting)


async def _warn_of_bypass() -> None:
    while True:
        log.warning("BYPASS_TWILIO_SIGNATURE is on: anyone can send webhooks")
        await asyncio.sleep(60)


if __name__ == "__main__":
    run_service("webhook", WebhookSettings, serve)
