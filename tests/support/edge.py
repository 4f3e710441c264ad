"""An edge on a real socket, and webhooks signed by Twilio's own SDK."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from prometheus_client import CollectorRegistry
from twilio.request_validator import (  # type: ignore[import-untyped]  # has no types
    RequestValidator,
)

from services.common.audio import AudioBucket
from services.common.grpc_client import open_channel
from services.common.http_server import serving_http
from services.common.journal.bundles import Bundles
from services.common.journal.client import NatsClient
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import INGEST_STREAM, INTAKE_STREAM, ensure_streams
from services.webhook.app import Edge as EdgeApp
from services.webhook.audio import audio_router
from services.webhook.audio_cache import AudioCache
from services.webhook.ingress import WebhookIngress
from services.webhook.internal import build_internal
from services.webhook.messaging_probe import MessagingProbe
from services.webhook.playable import Playable
from services.webhook.routes import WHATSAPP_ROUTES
from services.webhook.signature import SignatureVerifier
from services.webhook.spill import Spill
from services.webhook.voice import VoiceResponder
from services.webhook.voice_routes import voice_routes
from services.webhook.voicemail import VoiceLanguage, Voicemail
from services.webhook.voicemail_page import voicemail_router
from tests.support.api import GRPC_TOKEN

TOKEN = "a-test-token"
PUBLIC_HOST = "https://switchboard.example.com"
INCOMING = "/webhook/whatsapp/incoming"
STATUS = "/webhook/whatsapp/status"
FORM = "application/x-www-form-urlencoded"


def message(sid: str, **more: str) -> dict[str, str]:
    """Parameters of an inbound WhatsApp message."""
    return {
        "MessageSid": sid,
        "AccountSid": "AC00000000000000000000000000000000",
        "From": "whatsapp:+972501234567",
        "To": "whatsapp:+14155238886",
        "Body": "Is the flat in Haifa still free? 🙂",
        "NumMedia": "0",
        "MediaUrl0": "",
        **more,
    }


def signature(target: str, parameters: Mapping[str, str], token: str = TOKEN) -> str:
    """What Twilio's SDK signs a request to `target` (path and query) with."""
    return str(RequestValidator(token).compute_signature(PUBLIC_HOST + target, dict(parameters)))


@dataclass
class Edge:
    """A running edge.

    Attributes:
        internal: Its internal port.
    """

    http: httpx.AsyncClient
    internal: httpx.AsyncClient
    port: int
    registry: CollectorRegistry
    journal: JournalPublisher
    spill: Spill

    async def post(
        self,
        target: str,
        parameters: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Post a webhook with a valid signature."""
        signed = {
            "content-type": FORM,
            "x-twilio-signature": signature(target, parameters),
            **(headers or {}),
        }
        return await self.http.post(target, content=urlencode(parameters), headers=signed)

    def count(self, outcome: str, route: str = "whatsapp_incoming") -> float:
        """How many requests ended in `outcome`."""
        labels = {"route": route, "outcome": outcome}
        return self.registry.get_sample_value("switchboard_webhook_requests_total", labels) or 0


@contextlib.asynccontextmanager
async def running_edge(
    client: Client,
    spill_path: Path,
    *,
    spill_max_bytes: int = 10_000_000,
    timeout_seconds: float = 3.0,
    failures_per_minute: int = 1000,
    read_seconds: float = 8.0,
    messaging: str = "127.0.0.1:9",
    voice_language: VoiceLanguage = "en-US",
    answer_seconds: float = 3.0,
    hold_seconds: float = 4.0,
    audio_cache_bytes: int = 1_000_000,
    audio_misses_per_minute: int = 60,
    shared_keys: Mapping[str, str] | None = None,
) -> AsyncIterator[Edge]:
    """An edge that publishes through `client`; nothing drains its spill.

    Args:
        messaging: Address of its gRPC; nobody answers at the default.
    """
    registry = CollectorRegistry()
    channel = open_channel(messaging, GRPC_TOKEN)
    cache = AudioCache(AudioBucket(client, timeout_seconds=10).get, max_bytes=audio_cache_bytes)
    voice = VoiceResponder(
        channel,
        public_host=PUBLIC_HOST,
        voicemail=Voicemail(voice_language),
        playable=Playable(cache, lambda: client.is_connected),
        registry=registry,
        answer_seconds=answer_seconds,
        hold_seconds=hold_seconds,
    )
    journal = JournalPublisher(client, bundles=Bundles(client), timeout_seconds=timeout_seconds)
    spill = Spill(spill_path, max_bytes=spill_max_bytes)
    await spill.open()
    ingress = WebhookIngress(
        routes=(*WHATSAPP_ROUTES, *voice_routes(voice)),
        verifier=SignatureVerifier(PUBLIC_HOST, [TOKEN], shared_keys or {}),
        journal=journal,
        spill=spill,
        registry=registry,
        failures_per_minute=failures_per_minute,
        read_seconds=read_seconds,
    )
    app = EdgeApp(
        ingress=ingress,
        routers=[
            audio_router(cache, registry=registry, misses_per_minute=audio_misses_per_minute),
            voicemail_router(voice),
        ],
    )
    try:
        async with (
            serving_http(app, host="127.0.0.1", port=0, drain_seconds=5, taker=ingress) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(
                    build_internal(journal, spill, MessagingProbe(channel), registry=registry)
                ),
                base_url="http://internal",
            ) as internal,
        ):
            yield Edge(http, internal, port, registry, journal, spill)
    finally:
        await channel.close()
        await journal.close()
        await spill.close()


@contextlib.asynccontextmanager
async def journal_client(url: str) -> AsyncIterator[Client]:
    """A client of a NATS that has the streams."""
    client = NatsClient()
    await client.connect(
        url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,  # type: ignore[arg-type]  # only ever added
        error_cb=_ignore,
    )
    try:
        await ensure_streams(client.jetstream(), replicas=1, max_bytes=50_000_000)
        yield client
    finally:
        await client.close()


async def stored(url: str, *, moved: bool = True) -> list[Msg]:
    """Everything in the journal, in order.

    Args:
        moved: Whether to wait for what is on its way there in a bundle, for up to 5 s.
    """
    client = NatsClient()
    await client.connect(url)
    try:
        js = client.jetstream()
        try:
            await js.stream_info(INGEST_STREAM)
        except NotFoundError:
            return []
        for _ in range(250 if moved else 0):
            if not (await js.stream_info(INTAKE_STREAM)).state.messages:
                break
            await asyncio.sleep(0.02)
        info = await js.stream_info(INGEST_STREAM)
        subscription = await js.subscribe("ingest.>", ordered_consumer=True)
        return [await subscription.next_msg(timeout=60) for _ in range(info.state.messages)]
    finally:
        await client.close()


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that happens in its own time.

    Raises:
        TimeoutError: It didn't.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to tell
            await asyncio.sleep(0.02)


async def _ignore(_: Exception) -> None:
    """The broker is made to fail on purpose."""
