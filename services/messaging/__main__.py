"""`python -m services.messaging`."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from functools import partial

import grpc.aio
import structlog
from switchboard.health.v1 import health_service_pb2_grpc
from switchboard.messaging.v1 import messaging_service_pb2_grpc
from switchboard.voice.v1 import voice_service_pb2_grpc

from services.common.grpc_server import GrpcServer
from services.common.journal.client import NatsClient
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import keep_connected
from services.common.lifecycle import (
    Loop,
    after,
    run_service,
    run_until_stopped,
    spare_collector,
)
from services.common.metrics import process_registry, serving_metrics, watch_event_loop
from services.common.settings import secret_list, split_list
from services.common.tracing import tracing
from services.messaging.assistant_wiring import wire_assistant
from services.messaging.baileys_wiring import baileys_events
from services.messaging.consumers import voice as voice_consumer
from services.messaging.consumers.acts import ActPublisher
from services.messaging.consumers.changes import ChangeSignal
from services.messaging.consumers.ingest import DURABLE, IngestConsumer
from services.messaging.consumers.journaling import WebhookJournal
from services.messaging.consumers.left_bundles import LeftBundles
from services.messaging.consumers.parked import sweep_parked
from services.messaging.consumers.retention import keep_journal_short
from services.messaging.domain.opt_out import OptOutWords
from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api import health_servicer, voice_servicer
from services.messaging.grpc_api.servicer import SERVICE_NAME, MessagingServicer
from services.messaging.health_wiring import wire_health
from services.messaging.providers.baileys.addresses import PROVIDER as BAILEYS
from services.messaging.providers.twilio import webhooks as twilio_webhooks
from services.messaging.providers_wiring import wire_providers
from services.messaging.sending_wiring import send_policy, wire_sending
from services.messaging.settings import MessagingSettings
from services.messaging.store.acts import SqlActLog
from services.messaging.store.changes import SqlChangeReader
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.files import ObjectMediaStore
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.known import SqlKnownMessages
from services.messaging.store.media import SqlMediaQueue
from services.messaging.store.queries import SqlMessageReader
from services.messaging.store.schedule import SqlSchedule
from services.messaging.usecases.clock_watch import ClockWatch
from services.messaging.usecases.fetch_media import FetchMedia
from services.messaging.usecases.find_lost import FindLostWebhooks
from services.messaging.usecases.receive import Receive
from services.messaging.usecases.watch import Watch
from services.messaging.voice_wiring import wire_voice

log = structlog.get_logger(__name__)


async def serve(settings: MessagingSettings, stop: asyncio.Event) -> None:
    """Run messaging until `stop` is set."""
    registry = process_registry("messaging")
    client = NatsClient()
    changes = ChangeSignal(client)
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
        slow_query_seconds=settings.slow_query_ms / 1000,
        on_events=changes.announce,
    )
    async with contextlib.AsyncExitStack() as closing:
        traces = await closing.enter_async_context(tracing(settings, "messaging"))
        closing.push_async_callback(database.close)
        closing.push_async_callback(client.close)
        closing.enter_context(
            serving_metrics(settings.metrics_port, registry, host=settings.metrics_host)
        )
        publisher = JournalPublisher(client)
        closing.push_async_callback(publisher.close)
        streams_ready = asyncio.Event()
        providers = await wire_providers(
            settings,
            publisher=publisher,
            streams_ready=streams_ready,
            closing=closing,
            registry=registry,
            clock=_now,
            tracing=traces,
        )
        ingest = SqlIngestStore(database)
        addresses = ContactAddresses(settings.default_region)
        policy = send_policy(settings)
        sending = wire_sending(
            settings,
            providers,
            database=database,
            policy=policy,
            ingest=ingest,
            addresses=addresses,
            registry=registry,
            clock=_now,
        )
        answering = wire_assistant(
            settings,
            database=database,
            policy=policy,
            sending=sending,
            closing=closing,
            clock=_now,
            tracing=traces,
        )
        consumer = IngestConsumer(
            client,
            Receive(
                ingest,
                OptOutWords(split_list(settings.opt_out_words), split_list(settings.opt_in_words)),
                replies=answering.policy if answering else None,
                clock=_now,
                on_stored=answering.on_stored if answering else _nothing,
            ),
            {twilio_webhooks.PROVIDER: twilio_webhooks, BAILEYS: baileys_events(settings)},
            join=ingest.join,
            registry=registry,
            tracing=traces,
        )
        watch = Watch(SqlChangeReader(database))
        media = ObjectMediaStore(database, client, clock=_now, replicas=settings.jetstream_replicas)
        files = FetchMedia(
            SqlMediaQueue(database, _now),
            providers.sources,
            media,
            clock=_now,
            registry=registry,
        )
        reader = SqlMessageReader(database)

        servicer = MessagingServicer(
            sending.send,
            reader=reader,
            conversations=SqlConversationStore(database, _now),
            watch=watch,
            addresses=addresses,
            media=media,
            providers=sending.statuses,
        )
        voice = None
        # Calls need the account alone, whoever carries WhatsApp.
        if settings.twilio_account_sid and settings.twilio_auth_token.get_secret_value():
            voice = wire_voice(
                settings,
                client=client,
                database=database,
                send=sending.send,
                addresses=addresses,
                streams_ready=streams_ready,
                closing=closing,
                registry=registry,
                clock=_now,
                tracing=traces,
            )
        lost: FindLostWebhooks | None = None
        durables = [DURABLE, *([voice_consumer.DURABLE] if voice else [])]
        health = wire_health(
            settings,
            client=client,
            database=database,
            reader=reader,
            durables=[durable.name for durable in durables],
            providers=sending.statuses,
            vendors=lambda: [
                *([answering.vendor()] if answering else []),
                *(voice.vendors() if voice else []),
            ],
            lost_webhooks=lambda: (lost.found_total, lost.looked_at) if lost else (0, None),
            registry=registry,
            clock=_now,
        )

        def add_services(server: grpc.aio.Server) -> None:
            health_service_pb2_grpc.add_HealthServiceServicer_to_server(health.servicer, server)
            messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(servicer, server)
            if voice is not None:
                voice_service_pb2_grpc.add_VoiceServiceServicer_to_server(voice.servicer, server)

        server = GrpcServer(
            address=settings.messaging_grpc_bind,
            tokens=secret_list(settings.grpc_token),
            service_names=[
                health_servicer.SERVICE_NAME,
                SERVICE_NAME,
                *([voice_servicer.SERVICE_NAME] if voice else []),
            ],
            add_services=add_services,
            # Who asks how we are hears it from the start, also when the database is away.
            open_before=[health_servicer.SERVICE_NAME],
            registry=registry,
            tracing=traces,
        )
        acts = ActPublisher(
            client,
            SqlActLog(database, _now),
            replicas=settings.jetstream_replicas,
            # What we do is less, and smaller, than what webhooks tell.
            max_bytes=settings.journal_max_bytes // 4,
            registry=registry,
        )

        def changed() -> None:
            watch.wake()
            acts.wake()

        work: list[Loop] = [
            after(streams_ready, consumer.run),
            after(streams_ready, LeftBundles(client).run),
            partial(
                keep_journal_short,
                client,
                durables=durables,
                max_age=timedelta(days=settings.journal_retention_days),
                clock=_now,
                ready=streams_ready,
            ),
            *sending.loops,
            ClockWatch(SqlSchedule(database, _now), clock=_now).run,
            partial(
                sweep_parked,
                ingest,
                keep=timedelta(days=settings.parked_status_retention_days),
                clock=_now,
            ),
            files.run,
            partial(changes.run, changed),
            watch.run,
            acts.run,
            *providers.loops,
            *(answering.loops if answering else ()),
            *(voice.loops if voice else ()),
        ]
        if providers.history is not None:
            lost = FindLostWebhooks(
                providers.history,
                SqlKnownMessages(database),
                WebhookJournal(client, publisher, clock=_now),
                clock=_now,
                registry=registry,
                interval=timedelta(seconds=settings.lost_webhook_interval_seconds),
                look_back=timedelta(seconds=settings.lost_webhook_lookback_seconds),
            )
            work.append(after(streams_ready, lost.run))
        await run_until_stopped(
            stop,
            keep_connected(
                client,
                settings.nats_url.get_secret_value(),
                name="switchboard-messaging",
                replicas=settings.jetstream_replicas,
                max_bytes=settings.journal_max_bytes,
                owner=True,
                ready=streams_ready,
            ),
            health.monitor.run(),
            health.serve(server),
            watch_event_loop(registry),
            _say_ready(health.database_ready, server.port),
            *(after(health.database_ready, loop)() for loop in work),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _nothing() -> None:
    pass


async def _say_ready(ready: asyncio.Event, port: int) -> None:
    await ready.wait()
    log.info("messaging is ready", port=port)
    spare_collector()
    # Nothing else to do, and a loop has no end.
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_service("messaging", MessagingSettings, serve)
