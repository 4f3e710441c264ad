"""Putting the providers together, in the order in which one takes over; only `__main__` does so."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.common.journal.publisher import JournalPublisher
from services.common.lifecycle import Loop
from services.common.settings import secret_list
from services.common.tracing import Tracing
from services.messaging.baileys_wiring import wire_baileys
from services.messaging.ports.clock import Clock
from services.messaging.ports.media import MediaSource
from services.messaging.ports.provider_status import ProviderCondition
from services.messaging.ports.sending import Provider
from services.messaging.providers.guarded_http import is_on_this_machine
from services.messaging.providers.twilio import webhooks as twilio_webhooks
from services.messaging.providers.twilio.client import TwilioProvider
from services.messaging.providers.twilio.history import TwilioHistory
from services.messaging.providers.twilio.media import TwilioMedia
from services.messaging.providers.twilio.session import open_session
from services.messaging.settings import MessagingSettings
from services.messaging.usecases.traced import TracedProvider


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers that are configured.

    Attributes:
        by_name: In this order one takes over for another.
        conditions: Of those that say themselves how they are.
        sources: Where the files of each one's messages are.
        send_timeout: How long one send may take, whoever does it.
        local_files: Files to be sent may be on this machine.
        history: What Twilio knows of our messages; None where it isn't used.
        loops: Endless; each is to be run.
    """

    by_name: Mapping[str, Provider]
    conditions: Mapping[str, Callable[[], ProviderCondition]]
    sources: Mapping[str, MediaSource]
    send_timeout: timedelta
    local_files: bool
    history: TwilioHistory | None
    loops: tuple[Loop, ...]


async def wire_providers(
    settings: MessagingSettings,
    *,
    publisher: JournalPublisher,
    streams_ready: asyncio.Event,
    closing: contextlib.AsyncExitStack,
    registry: CollectorRegistry,
    clock: Clock,
    tracing: Tracing,
) -> Providers:
    """What carries WhatsApp.

    Args:
        streams_ready: Set when the journal's streams are there.
        closing: Closes at the end what is opened here.
    """
    found: dict[str, Provider] = {}
    conditions: dict[str, Callable[[], ProviderCondition]] = {}
    sources: dict[str, MediaSource] = {}
    send_timeout = timedelta(seconds=settings.twilio_timeout_seconds + 5)
    history = None
    if twilio_webhooks.PROVIDER in settings.providers():
        auth_token = SecretStr(secret_list(settings.twilio_auth_token)[0])
        session = await closing.enter_async_context(
            open_session(
                account_sid=settings.twilio_account_sid,
                auth_token=auth_token,
                base_url=settings.twilio_api_base_url,
                request_timeout=timedelta(seconds=settings.twilio_timeout_seconds),
                clock=clock,
            )
        )
        twilio = TwilioProvider(session, public_host=settings.public_host)
        found[twilio.name] = twilio
        sources[twilio.name] = TwilioMedia(
            account_sid=settings.twilio_account_sid,
            auth_token=auth_token,
            base_url=settings.twilio_api_base_url,
        )
        history = TwilioHistory(session, own_address=settings.twilio_whatsapp_number)
    # Where Twilio is on this machine, as the sandbox is, it may fetch files here.
    local_files = is_on_this_machine(settings.twilio_api_base_url)
    baileys = wire_baileys(
        settings,
        publisher=publisher,
        streams_ready=streams_ready,
        local_files=local_files,
        registry=registry,
        clock=clock,
    )
    if baileys is not None:
        found[baileys.provider.name] = baileys.provider
        conditions[baileys.provider.name] = baileys.condition
        sources[baileys.provider.name] = baileys.files
        send_timeout = max(send_timeout, baileys.send_timeout)
    return Providers(
        by_name={name: TracedProvider(found[name], tracing) for name in settings.providers()},
        conditions=conditions,
        sources=sources,
        send_timeout=send_timeout,
        local_files=local_files,
        history=history,
        loops=tuple(baileys.loops) if baileys is not None else (),
    )
