"""Google and OpenAI make speech of sentences, and never anything that can't be played."""

import asyncio
import base64
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from sandbox.faults import Faults, VendorFault
from sandbox.google_account import new_service_account
from sandbox.phone.mp3 import mp3_title, silent_mp3
from sandbox.server import RunningSandbox
from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.openai_client import open_client
from services.messaging.ports.speech import Synthesizer
from services.messaging.speech.google_speech import GoogleSpeech
from services.messaging.speech.openai_speech import OpenAISpeech
from tests.support.peer import (
    Answer,
    Peer,
    answering,
    dripping,
    hanging_up,
    patience,
    running_peer,
    silent,
    streaming,
)

KEY = "openai-key"
TOKEN = "ya29.secret-token"
SAID = "The flat is still free."
HEBREW = "הדירה עדיין פנויה."
MP3 = silent_mp3(0.5, SAID)

Opened = AbstractAsyncContextManager[Synthesizer]


@asynccontextmanager
async def google(
    account: str, base_url: str, *, seconds: float = 30, **more: Any
) -> AsyncIterator[GoogleSpeech]:
    one = GoogleSpeech(
        SecretStr(account),
        base_url=base_url,
        **{"voices": {}, "timeout_seconds": seconds, **more},
    )
    try:
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def open_ai(base_url: str, *, seconds: float = 30) -> AsyncIterator[OpenAISpeech]:
    async with open_client(api_key=SecretStr(KEY), base_url=base_url) as client:
        yield OpenAISpeech(client, model="tts", voice="alloy", timeout_seconds=seconds)


@pytest.fixture(scope="module")
def account() -> str:
    """A service account whose tokens come from "{here}"."""
    return new_service_account("{here}")


def at(account: str, base_url: str) -> str:
    """The account, its tokens to be fetched from a server."""
    return account.replace("{here}", base_url)


def told_apart(token: Answer, speech: Answer) -> Answer:
    """One server for tokens and speech."""

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        is_token = peer.requests[-1][0].startswith("POST /google/token ")
        await (token if is_token else speech)(peer, writer)

    return answer


GOOD_TOKEN = answering(json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode())
GOOD_SPEECH = answering(json.dumps({"audioContent": base64.b64encode(MP3).decode()}).encode())


async def test_both_speak(sandbox: RunningSandbox) -> None:
    """Each vendor says the text, in the caller's language."""
    async with (
        google(sandbox.google_account, sandbox.base_url) as one,
        open_ai(f"{sandbox.base_url}/openai/v1") as other,
    ):
        for text, language in ((SAID, "en-US"), (HEBREW, "he-IL")):
            assert mp3_title(await one.synthesize(text, language)) == text
            assert mp3_title(await other.synthesize(text, language)) == text


async def test_what_google_is_asked(account: str) -> None:
    """The voice, pace and sound for a telephone are asked for, with a token of the account's."""
    async with running_peer(told_apart(GOOD_TOKEN, GOOD_SPEECH)) as peer:
        voices = {"he-IL": "he-IL-Wavenet-C"}
        async with google(
            at(account, peer.base_url), peer.base_url, voices=voices, speaking_rate=1.1
        ) as one:
            assert await one.synthesize(HEBREW, "he-IL") == MP3
            await one.synthesize(SAID, "en-US")
        [token, hebrew, english] = peer.requests
    form = parse_qs(token[1].decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert hebrew[0].startswith("POST /v1/text:synthesize ")
    assert f"authorization: bearer {TOKEN}" in hebrew[0].lower()
    assert json.loads(hebrew[1]) == {
        "input": {"text": HEBREW},
        "voice": {"languageCode": "he-IL", "name": "he-IL-Wavenet-C"},
        "audioConfig": {
            "audioEncoding": "MP3",
            "speakingRate": 1.1,
            "effectsProfileId": ["telephony-class-application"],
        },
    }
    assert json.loads(english[1])["voice"] == {"languageCode": "en-US"}
    assert peer.connections == 1


async def test_a_sound_has_a_name(account: str) -> None:
    """Whatever changes how a text sounds changes the name under which it is kept."""
    async with (
        google(at(account, "http://127.0.0.1:9"), "http://127.0.0.1:9") as plain,
        google(
            at(account, "http://127.0.0.1:9"),
            "http://127.0.0.1:9",
            voices={"he-IL": "he-IL-Wavenet-C"},
        ) as voiced,
        google(
            at(account, "http://127.0.0.1:9"), "http://127.0.0.1:9", speaking_rate=1.2
        ) as faster,
        open_ai("http://127.0.0.1:9") as other,
        open_ai("http://localhost:9") as elsewhere,
    ):
        names = [one.voice("he-IL") for one in (plain, voiced, faster, other, elsewhere)]
        assert len(set(names)) == 5
        assert plain.voice("en-US") == plain.voice("en-US") != plain.voice("he-IL")


async def test_a_text_that_is_too_long_is_not_sent(account: str) -> None:
    """Google's limit counts bytes, of which a Hebrew letter has two."""
    async with running_peer(told_apart(GOOD_TOKEN, GOOD_SPEECH)) as peer:
        async with (
            google(at(account, peer.base_url), peer.base_url) as one,
            open_ai(peer.base_url) as other,
        ):
            assert await one.synthesize("א" * 2500, "he-IL") == MP3
            with pytest.raises(InvalidInputError, match="5000 bytes"):
                await one.synthesize("א" * 2501, "he-IL")
            with pytest.raises(InvalidInputError, match="4096 characters"):
                await other.synthesize("a" * 4097, "en-US")
        assert len(peer.requests) == 2


def opened(vendor: str, account: str, peer: Peer, seconds: float = 30) -> Opened:
    if vendor == "google":
        return google(at(account, peer.base_url), peer.base_url, seconds=seconds)
    return open_ai(peer.base_url, seconds=seconds)


ERROR = json.dumps({"error": {"message": f"no: {SAID} {KEY} {TOKEN}", "code": 7}}).encode()
NOT_MP3 = b"RIFF\0\0\0\0WAVEfmt "


def in_json(content: bytes) -> bytes:
    return json.dumps({"audioContent": base64.b64encode(content).decode()}).encode()


BAD = {
    "401": answering(ERROR, status="401 Unauthorized"),
    "403": answering(ERROR, status="403 Forbidden"),
    "429": answering(ERROR, status="429 Too Many Requests"),
    "500": answering(ERROR, status="500 Internal Server Error"),
    "redirect": answering(b"", status="302 Found"),
    "html": answering(b"<html>Good gateway</html>", content_type="text/html"),
    "nothing": answering(b""),
    "malformed": answering(b'{"audioContent": "SUQz'),
    "no base64": answering(b'{"audioContent": "%%%"}'),
    "no audio": answering(b"{}"),
    "array": answering(b"[]"),
    "wav in json": answering(in_json(NOT_MP3)),
    "wav": answering(NOT_MP3, content_type="audio/mpeg"),
    "cut": answering(in_json(MP3), cut=20),
    "cut audio": answering(MP3, content_type="audio/mpeg", cut=20),
    "huge": streaming(*(b"\xff" * 10**6,) * 17, content_type="audio/mpeg"),
    "dripping": dripping("audio/mpeg"),
    "silent": silent,
    "hanging up": hanging_up,
}


@pytest.mark.parametrize("vendor", ["google", "openai"])
@pytest.mark.parametrize("bad", BAD)
async def test_bad_answers_are_unavailability(
    vendor: str, bad: str, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with an answer, it is asked for once, ends in time, and leaks nothing."""
    caplog.set_level(logging.DEBUG)
    async with running_peer(told_apart(GOOD_TOKEN, BAD[bad])) as peer:
        async with opened(vendor, account, peer, seconds=patience(BAD[bad])) as one:
            with pytest.raises(UnavailableError) as caught:
                await one.synthesize(SAID, "en-US")
        asked = [head for head, _ in peer.requests if "/token" not in head]
        assert len(asked) == 1
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert not any(secret in told for secret in (KEY, TOKEN, SAID, "PRIVATE KEY"))


@pytest.mark.parametrize("vendor", ["google", "openai"])
async def test_a_text_that_is_refused(vendor: str, account: str) -> None:
    """A text that the vendor will never say is told apart from trouble that passes."""
    refusal = answering(ERROR, status="400 Bad Request")
    async with (
        running_peer(told_apart(GOOD_TOKEN, refusal)) as peer,
        opened(vendor, account, peer) as one,
    ):
        with pytest.raises(InvalidInputError) as caught:
            await one.synthesize(SAID, "en-US")
    assert SAID not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "bad",
    [
        answering(ERROR, status="400 Bad Request"),
        answering(ERROR, status="401 Unauthorized"),
        answering(ERROR, status="503 Service Unavailable"),
        answering(b"", status="302 Found"),
        answering(b'{"access_token": "ya29.secret-tok'),
        answering(b'{"expires_in": 3600}'),
        answering(b'{"access_token": "", "expires_in": 3600}'),
        answering(b'{"access_token": 5, "expires_in": 3600}'),
        answering(b'{"access_token": "x", "expires_in": "soon"}'),
        answering(b'["ya29.secret-token"]'),
        answering(b"<html>", content_type="text/html"),
        dripping("application/json"),
        silent,
        hanging_up,
    ],
)
async def test_without_a_token_nothing_is_asked(bad: Answer, account: str) -> None:
    """A token that can't be had is unavailability, and the text is sent to nobody."""
    async with running_peer(told_apart(bad, GOOD_SPEECH)) as peer:
        address = peer.base_url
        async with google(at(account, address), address, seconds=patience(bad)) as one:
            with pytest.raises(UnavailableError) as caught:
                await one.synthesize(SAID, "en-US")
        assert [head.split()[1] for head, _ in peer.requests] == ["/google/token"]
    told = "".join(traceback.format_exception(caught.value))
    assert not any(secret in told for secret in (TOKEN, "secret-tok", "PRIVATE KEY"))


async def test_a_token_serves_many_and_a_refused_one_is_replaced(account: str) -> None:
    """Sentences at once share one token; after a 401 the next sentence fetches a new one."""
    refuse_next: list[bool] = []

    async def speech(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await (BAD["401"] if refuse_next else GOOD_SPEECH)(peer, writer)

    def tokens(peer: Peer) -> int:
        return sum("/google/token" in head for head, _ in peer.requests)

    async with (
        running_peer(told_apart(GOOD_TOKEN, speech)) as peer,
        google(at(account, peer.base_url), peer.base_url) as one,
    ):
        await asyncio.gather(*(one.synthesize(SAID, "en-US") for _ in range(5)))
        assert tokens(peer) == 1
        refuse_next.append(True)
        with pytest.raises(UnavailableError):
            await one.synthesize(SAID, "en-US")
        refuse_next.clear()
        assert await one.synthesize(SAID, "en-US") == MP3
        assert tokens(peer) == 2


async def test_a_token_is_renewed_before_it_ends(account: str) -> None:
    """A token about to end isn't used for another sentence."""
    ending = answering(json.dumps({"access_token": TOKEN, "expires_in": 30}).encode())
    async with running_peer(told_apart(ending, GOOD_SPEECH)) as peer:
        async with google(at(account, peer.base_url), peer.base_url) as one:
            await one.synthesize(SAID, "en-US")
            await one.synthesize(SAID, "en-US")
        assert sum("/google/token" in head for head, _ in peer.requests) == 2


@pytest.mark.parametrize("vendor", ["google", "openai"])
async def test_cancelling_ends_the_request(vendor: str, account: str) -> None:
    """When the caller hangs up, the vendor's connection is closed, and nothing else is held up."""
    async with (
        running_peer(told_apart(GOOD_TOKEN, silent)) as peer,
        opened(vendor, account, peer) as one,
    ):
        task = asyncio.create_task(one.synthesize(SAID, "en-US"))
        while not any("/token" not in head for head, _ in peer.requests):
            await peer.asked.wait()
            peer.asked.clear()
        task.cancel()
        await asyncio.wait_for(peer.left.wait(), 60)
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("vendor", "fault"),
    [("google", "google_speech"), ("google", "google_token"), ("openai", "speech")],
)
@pytest.mark.parametrize("kind", ["error", "rate_limited", "hang", "cut", "garbage"])
async def test_vendors_recover(sandbox: RunningSandbox, vendor: str, fault: str, kind: str) -> None:
    """After any failure the same synthesizer works on."""
    sandbox.set_faults(Faults(**{fault: VendorFault.model_validate({"kind": kind, "times": 1})}))
    opening: Callable[[], Opened] = (
        (lambda: google(sandbox.google_account, sandbox.base_url, seconds=1))
        if vendor == "google"
        else (lambda: open_ai(f"{sandbox.base_url}/openai/v1", seconds=1))
    )
    async with opening() as one:
        with pytest.raises(UnavailableError):
            await one.synthesize(SAID, "en-US")
        assert mp3_title(await one.synthesize(SAID, "en-US")) == SAID
