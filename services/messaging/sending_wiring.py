"""Putting together what takes messages and sends them; only `__main__` does so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry

from services.common.lifecycle import Loop
from services.messaging.domain.phone import ContactAddresses
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.providers.baileys.addresses import PROVIDER as BAILEYS
from services.messaging.providers.media_inspector import HttpMediaInspector
from services.messaging.providers_wiring import Providers
from services.messaging.settings import MessagingSettings
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.breaker import Breaker
from services.messaging.usecases.dispatch import Dispatcher
from services.messaging.usecases.pace import RecipientPace, SenderPace
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.reconcile import Reconciler
from services.messaging.usecases.retrying import RetryPolicy
from services.messaging.usecases.send import SendMessage


@dataclass(frozen=True, slots=True)
class Sending:
    """What messaging runs to send.

    Attributes:
        send: Takes a message.
        on_queued: To be called when one was put into the outbox by somebody else.
        statuses: How the providers are.
        loops: Endless; each is to be run.
    """

    send: SendMessage
    on_queued: Callable[[], None]
    statuses: Callable[[], Sequence[ProviderStatus]]
    loops: Sequence[Loop]


def send_policy(settings: MessagingSettings) -> SendPolicy:
    """The rules for what may be sent, and how fast."""
    return SendPolicy(
        web_providers=frozenset({BAILEYS}),
        pace=RecipientPace(
            interval=timedelta(seconds=settings.recipient_seconds_between_messages),
            burst=settings.recipient_burst_messages,
        ),
        max_waiting=settings.recipient_max_waiting,
        max_age=timedelta(seconds=settings.send_max_age_seconds),
    )


def wire_sending(
    settings: MessagingSettings,
    providers: Providers,
    *,
    database: Database,
    policy: SendPolicy,
    ingest: SqlIngestStore,
    addresses: ContactAddresses,
    registry: CollectorRegistry,
    clock: Clock,
) -> Sending:
    """The outbox and what works on it."""
    outbox = SqlOutboxStore(database, clock, policy)
    breakers = {
        name: Breaker(name, clock, condition=providers.conditions[name])
        if name in providers.conditions
        else Breaker(name, clock)
        for name in providers.by_name
    }
    retry = RetryPolicy(max_age=policy.max_age)
    dispatcher = Dispatcher(
        outbox,
        providers.by_name,
        clock=clock,
        on_accepted=ingest.apply_parked,
        concurrency=settings.send_concurrency,
        send_timeout=providers.send_timeout,
        lease=2 * providers.send_timeout + timedelta(seconds=10),
        retry=retry,
        breakers=breakers,
        pace=SenderPace(settings.sender_messages_per_second),
        registry=registry,
    )
    reconciler = Reconciler(
        outbox,
        providers.by_name,
        clock=clock,
        on_accepted=ingest.apply_parked,
        on_due=dispatcher.wake,
        grace=timedelta(seconds=settings.send_unknown_grace_seconds),
        retry=retry,
        registry=registry,
    )
    send = SendMessage(
        outbox,
        own_address=settings.own_address(),
        own_addresses=settings.own_addresses(),
        provider=settings.providers()[0],
        on_queued=dispatcher.wake,
        files=HttpMediaInspector(
            local=providers.local_files, timeout_seconds=settings.media_look_timeout_seconds
        ),
        local_files=providers.local_files,
        addresses=addresses,
    )
    return Sending(
        send=send,
        on_queued=dispatcher.wake,
        statuses=lambda: [breaker.status() for breaker in breakers.values()],
        loops=(dispatcher.run, reconciler.run),
    )
