"""Recordings become words, and nothing a vendor may answer becomes anything else."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from sandbox.faults import Faults, VendorFault
from sandbox.phone.wav import silence, speech, wav_file
from sandbox.server import RunningSandbox
from services.common.errors import InvalidInputError, SwitchboardError, UnavailableError
from services.messaging.openai_client import open_client
from services.messaging.ports.speech import Transcript
from services.messaging.speech.openai_transcriber import OpenAITranscriber
from tests.support.peer import (
    Answer,
    Peer,
    answering,
    dripping,
    hanging_up,
    patience,
    running_peer,
    silent,
)

HEBREW = "הדירה בחיפה עדיין פנויה?"
KEY = "openai-key"


@asynccontextmanager
async def transcriber(
    base_url: str, *, model: str = "gpt-transcribe", seconds: float = 30, **more: Any
) -> AsyncIterator[OpenAITranscriber]:
    async with open_client(api_key=SecretStr(KEY), base_url=base_url) as client:
        yield OpenAITranscriber(client, model=model, timeout_seconds=seconds, **more)


async def heard_by(peer: Peer, *, seconds: float = 30) -> Transcript:
    async with transcriber(peer.base_url, seconds=seconds) as one:
        return await one.transcribe(b"wav", languages=())


@pytest.mark.parametrize(("text", "language"), [("Is it free?", "en"), (HEBREW, "he")])
async def test_words_and_their_language(sandbox: RunningSandbox, text: str, language: str) -> None:
    """What a caller said comes back, with the language in which it was said."""
    wav = wav_file(speech(2), text=text)
    async with transcriber(f"{sandbox.base_url}/openai/v1") as one:
        found = await one.transcribe(wav, languages=["he-IL", "en-US"])
    assert found == Transcript(text, language)


async def test_nothing_said_is_an_empty_transcript(sandbox: RunningSandbox) -> None:
    """Silence is a transcript without words or a language, and no error."""
    async with transcriber(f"{sandbox.base_url}/openai/v1") as one:
        assert await one.transcribe(wav_file(silence(2)), languages=[]) == Transcript("", None)


@pytest.mark.parametrize(
    ("model", "languages", "sent", "unsent"),
    [
        ("gpt-transcribe", ["he-IL", "en-US", "en-GB"], ["he", "en", "Carmel"], ['"language"']),
        ("whisper-1", ["he-IL"], ['"language"', "he"], ["languages", "keywords", "Carmel"]),
        ("whisper-1", ["he-IL", "en-US"], [], ["language", "keywords", "Carmel"]),
    ],
)
async def test_models_are_told_what_they_know(
    model: str, languages: list[str], sent: list[str], unsent: list[str]
) -> None:
    """Only gpt-transcribe takes several languages and keywords; others get one or none."""
    async with running_peer(answering(b'{"text": "Yes", "languages": []}')) as peer:
        async with transcriber(peer.base_url, model=model, keywords=["Carmel"]) as one:
            assert await one.transcribe(b"RIFF", languages=languages) == Transcript("Yes", None)
        [(head, body)] = peer.requests
    assert head.startswith("POST /audio/transcriptions ")
    form = body.decode()
    assert 'filename="recording.wav"' in form
    assert all(word in form for word in sent)
    assert not any(word in form for word in unsent)


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Too Large", "422 Unprocessable"])
async def test_a_recording_that_is_refused_is_not_tried_again(status: str) -> None:
    """What the vendor refuses for good is told apart from what may work later."""
    body = json.dumps({"error": {"message": f"can't decode, key {KEY}"}}).encode()
    async with running_peer(answering(body, status=status)) as peer:
        with pytest.raises(InvalidInputError) as caught:
            await heard_by(peer)
        assert len(peer.requests) == 1
    assert_says_nothing(caught.value)


ERROR = json.dumps({"error": {"message": f"Incorrect API key: {KEY}", "code": HEBREW}}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        answering(ERROR, status="401 Unauthorized"),
        answering(ERROR, status="404 Not Found"),
        answering(ERROR, status="429 Too Many Requests"),
        answering(ERROR, status="500 Internal Server Error"),
        answering(b'{"text": "trunc'),
        answering(b"null"),
        answering(b"[]"),
        answering(b'{"text": null}'),
        answering(b'{"text": ["a"]}'),
        answering(b"<html>Good gateway</html>", content_type="text/html"),
        answering(b'{"text": "Hello there"}', cut=5),
        answering(b"\xff\xfe\x00"),
        dripping("application/json"),
        silent,
        hanging_up,
    ],
)
async def test_bad_answers_are_unavailability(answer: Answer) -> None:
    """Whatever is wrong with an answer, it is asked for once, ends in time, and leaks nothing."""
    async with running_peer(answer) as peer:
        with pytest.raises(UnavailableError) as caught:
            await heard_by(peer, seconds=patience(answer))
        assert len(peer.requests) == 1
    assert_says_nothing(caught.value)


def assert_says_nothing(error: SwitchboardError) -> None:
    """Neither the error nor its traceback quotes the key or what a vendor wrote."""
    told = "".join(traceback.format_exception(error))
    assert KEY not in told
    assert HEBREW not in told


async def test_a_server_that_isn_t_there() -> None:
    """A refused connection is unavailability, at once."""
    async with transcriber("http://127.0.0.1:9") as one:
        with pytest.raises(UnavailableError):
            await one.transcribe(b"wav", languages=[])


async def test_cancelling_ends_the_request(sandbox: RunningSandbox) -> None:
    """When the caller hangs up, the vendor's connection is closed."""
    async with running_peer(silent) as peer, transcriber(peer.base_url) as one:
        task = asyncio.create_task(one.transcribe(b"wav", languages=[]))
        await peer.asked.wait()
        task.cancel()
        await asyncio.wait_for(peer.left.wait(), 60)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_requests_share_a_connection() -> None:
    """The second request needs no new connection."""
    async with (
        running_peer(answering(b'{"text": "Yes"}')) as peer,
        transcriber(peer.base_url) as one,
    ):
        for _ in range(3):
            await one.transcribe(b"wav", languages=["en-US"])
    assert (len(peer.requests), peer.connections) == (3, 1)


async def test_the_vendor_recovers(sandbox: RunningSandbox) -> None:
    """After a failure the same transcriber works on."""
    sandbox.set_faults(Faults(transcription=VendorFault(kind="error", times=1)))
    wav = wav_file(speech(1), text="Hello")
    async with transcriber(f"{sandbox.base_url}/openai/v1") as one:
        with pytest.raises(UnavailableError):
            await one.transcribe(wav, languages=["en-US"])
        assert (await one.transcribe(wav, languages=["en-US"])).text == "Hello"
