"""Sentences are rendered once, by the best vendor there is, and kept where the edge finds them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from sandbox.faults import Faults, VendorFault
from sandbox.phone.mp3 import mp3_title
from sandbox.server import RunningSandbox
from sandbox.vendors import Latencies
from services.common.audio import AUDIO_ID, AudioBucket, BucketConfig
from services.common.journal.streams import connect
from services.messaging.openai_client import open_client
from services.messaging.ports.provider_status import ProviderState
from services.messaging.ports.speech import AudioStore, Synthesizer
from services.messaging.speech.google_speech import GoogleSpeech
from services.messaging.speech.openai_speech import OpenAISpeech
from services.messaging.usecases.calls.speaking import Speaker
from tests.support.edge import until
from tests.support.nats import NatsServer
from tests.support.sending import ManualClock

SAID = "The flat is still free."
STORE_SECONDS = 2.0
CONFIG = BucketConfig(ttl=timedelta(days=1), replicas=1)


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async def closed() -> None:
        pass

    connected = await connect(nats_server.url, name="test", on_closed=closed)
    try:
        yield connected
    finally:
        await connected.close()


@pytest.fixture
async def store(client: Client) -> AudioStore:
    return AudioBucket(client, config=CONFIG, timeout_seconds=STORE_SECONDS)


@pytest.fixture
async def vendors(sandbox: RunningSandbox) -> AsyncIterator[list[Synthesizer]]:
    """Google first, then OpenAI."""
    google = GoogleSpeech(
        SecretStr(sandbox.google_account),
        base_url=sandbox.base_url,
        voices={},
        timeout_seconds=1,
    )
    url = f"{sandbox.base_url}/openai/v1"
    async with open_client(api_key=SecretStr("openai-key"), base_url=url) as ai:
        yield [google, OpenAISpeech(ai, model="tts", voice="alloy", timeout_seconds=1)]
    await google.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def speaker(
    store: AudioStore,
    vendors: list[Synthesizer],
    clock: ManualClock,
    registry: CollectorRegistry,
) -> Speaker:
    return Speaker(store, vendors, clock=clock, registry=registry)


@pytest.fixture
def count(registry: CollectorRegistry) -> Callable[..., float]:
    def counted(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"switchboard_speech_{name}_total", labels) or 0

    return counted


def asked(sandbox: RunningSandbox) -> list[tuple[str, str]]:
    """Vendors and the texts they were given, in order."""
    speech = ("google_speech", "speech")
    return [(one.vendor, one.about) for one in sandbox.state.vendor_calls if one.vendor in speech]


async def title(client: Client, audio_id: str | None) -> str | None:
    """What a file says, as the edge reads it."""
    assert audio_id is not None
    content = await AudioBucket(client).get(audio_id)
    return mp3_title(content) if content is not None else None


async def test_a_sentence_is_rendered_once(
    speaker: Speaker, sandbox: RunningSandbox, client: Client, count: Callable[..., float]
) -> None:
    """The same words, however they are spaced, are the same file; other words are another."""
    first = await speaker.speak(SAID, "en-US")
    assert await speaker.speak(f"  {SAID.replace(' ', '  ')}\n", "en-US") == first
    other = await speaker.speak("It has three rooms.", "en-US")
    assert await title(client, first) == SAID
    assert await title(client, other) == "It has three rooms."
    assert AUDIO_ID.fullmatch(first or "")
    assert len(asked(sandbox)) == 2
    assert count("cache_lookups", result="hit") == 1
    assert count("cache_lookups", result="miss") == 2


async def test_replicas_and_restarts_share_files(
    speaker: Speaker,
    store: AudioStore,
    vendors: list[Synthesizer],
    sandbox: RunningSandbox,
    clock: ManualClock,
) -> None:
    """What one process rendered another doesn't; another language is another file."""
    first = await speaker.speak(SAID, "en-US")
    other = Speaker(store, vendors, clock=clock, registry=CollectorRegistry())
    assert await other.speak(SAID, "en-US") == first
    assert await other.speak(SAID, "en-GB") != first
    assert len(asked(sandbox)) == 2


async def test_at_the_same_moment_a_vendor_is_asked_once(
    speaker: Speaker, sandbox: RunningSandbox
) -> None:
    """Twenty calls that need one sentence make one request."""
    sandbox.set_latencies(Latencies(google_speech=0.1))
    found = await asyncio.gather(*(speaker.speak(SAID, "en-US") for _ in range(20)))
    assert len(set(found)) == 1
    assert asked(sandbox) == [("google_speech", SAID)]


async def test_who_leaves_takes_nothing_from_others(
    speaker: Speaker, sandbox: RunningSandbox, client: Client
) -> None:
    """One caller hanging up doesn't end what another waits for; the last one does."""
    sandbox.set_latencies(Latencies(google_speech=0.3))
    leaving = asyncio.create_task(speaker.speak(SAID, "en-US"))
    staying = asyncio.create_task(speaker.speak(SAID, "en-US"))
    await until(lambda: bool(asked(sandbox)))
    leaving.cancel()
    assert await title(client, await staying) == SAID
    with pytest.raises(asyncio.CancelledError):
        await leaving

    sandbox.set_faults(Faults(google_speech=VendorFault(kind="hang")))
    alone = asyncio.create_task(speaker.speak("Never mind.", "en-US"))
    await until(lambda: len(asked(sandbox)) == 2)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    calls = sandbox.state.vendor_calls
    await until(lambda: calls[-1].seconds is not None)
    # Whoever asks later begins anew, and the vendor wasn't at fault.
    sandbox.set_faults(Faults())
    assert await title(client, await speaker.speak("Never mind.", "en-US")) == "Never mind."


async def test_the_next_vendor_speaks_when_the_first_fails(
    speaker: Speaker,
    sandbox: RunningSandbox,
    client: Client,
    clock: ManualClock,
    count: Callable[..., float],
) -> None:
    """A vendor that fails is left alone for a while, then tried again; fallbacks are counted."""
    sandbox.set_faults(Faults(google_speech=VendorFault(kind="error")))
    assert await title(client, await speaker.speak(SAID, "en-US")) == SAID
    assert await title(client, await speaker.speak("Two rooms.", "en-US")) == "Two rooms."
    assert asked(sandbox) == [("google_speech", SAID), ("speech", SAID), ("speech", "Two rooms.")]
    assert count("fallbacks", vendor="openai") == 2
    assert count("failures", vendor="google") == 1
    assert [one.state for one in speaker.vendors()] == [
        ProviderState.UNAVAILABLE,
        ProviderState.HEALTHY,
    ]
    sandbox.set_faults(Faults())
    clock.forward(16)
    await speaker.speak("Three rooms.", "en-US")
    assert asked(sandbox)[3:] == [("google_speech", "Three rooms.")]


async def test_a_file_of_the_vendor_at_rest_is_played(
    speaker: Speaker, sandbox: RunningSandbox
) -> None:
    """What was rendered before a failure is found during it, without asking anybody."""
    first = await speaker.speak(SAID, "en-US")
    sandbox.set_faults(Faults(google_speech=VendorFault(kind="error")))
    await speaker.speak("Two rooms.", "en-US")
    before = len(asked(sandbox))
    assert await speaker.speak(SAID, "en-US") == first
    assert len(asked(sandbox)) == before


async def test_when_nobody_can_the_provider_speaks(
    speaker: Speaker, sandbox: RunningSandbox, count: Callable[..., float]
) -> None:
    """With every vendor down there is no file and no error, and soon nobody is asked in vain."""
    down = VendorFault(kind="hang")
    sandbox.set_faults(Faults(google_speech=down, speech=down))
    assert await speaker.speak(SAID, "en-US") is None
    assert await speaker.speak("Two rooms.", "en-US") is None
    assert asked(sandbox) == [("google_speech", SAID), ("speech", SAID)]
    assert count("fallbacks", vendor="provider") == 2


async def test_a_text_that_one_vendor_refuses_is_said_by_the_next(
    speaker: Speaker, sandbox: RunningSandbox
) -> None:
    """A refused text doesn't count against the vendor: the next one it speaks."""
    long = "word " * 1001
    assert await speaker.speak(long, "en-US") is None
    assert await speaker.speak("ארבע מילים בעברית פה " * 130, "he-IL") is not None
    assert await speaker.speak(SAID, "en-US") is not None
    assert asked(sandbox)[-1] == ("google_speech", SAID)


async def test_without_vendors_or_words_there_is_no_file(
    speaker: Speaker, store: AudioStore, clock: ManualClock
) -> None:
    """Nothing configured means the provider's own speech; no words mean no request."""
    bare = Speaker(store, [], clock=clock, registry=CollectorRegistry())
    assert await bare.speak(SAID, "en-US") is None
    assert await speaker.speak("  \n", "en-US") is None


async def test_a_store_that_is_away_asks_no_vendor(
    speaker: Speaker, sandbox: RunningSandbox, nats_server: NatsServer
) -> None:
    """Speech that can't be kept can't be played: the provider speaks, and no vendor is paid."""
    nats_server.kill()
    assert await speaker.speak(SAID, "en-US") is None
    assert asked(sandbox) == []


@asynccontextmanager
async def _frozen(server: NatsServer) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_a_store_that_hangs_ends(
    speaker: Speaker,
    sandbox: RunningSandbox,
    nats_server: NatsServer,
    client: Client,
    clock: ManualClock,
) -> None:
    """A frozen store costs its time limit once; then the provider speaks until it is back."""
    async with _frozen(nats_server):
        assert await speaker.speak(SAID, "en-US") is None
        async with asyncio.timeout(STORE_SECONDS / 2):
            assert await speaker.speak("Two rooms.", "en-US") is None
    assert asked(sandbox) == []
    clock.forward(6)
    assert await title(client, await speaker.speak(SAID, "en-US")) == SAID
