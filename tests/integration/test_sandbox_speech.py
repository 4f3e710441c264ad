"""OpenAI's and Google's own clients can't tell the sandbox's speech vendors from the real ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import BadRequest, GoogleAPICallError, Unauthorized
from google.auth import jwt
from google.auth.exceptions import RefreshError
from google.cloud import texttospeech
from google.oauth2 import service_account
from openai import AsyncOpenAI

from sandbox.faults import Fault, Faults, VendorFault
from sandbox.google_account import new_service_account
from sandbox.phone.mp3 import mp3_seconds, mp3_title
from sandbox.phone.wav import read_wav, silence, speech, wav_file
from sandbox.server import RunningSandbox
from sandbox.vendors import Latencies
from tests.support.edge import until

AUDIENCE = "https://texttospeech.googleapis.com/"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
HEBREW = "הדירה בחיפה עדיין פנויה?"


@pytest.fixture
async def ai(sandbox: RunningSandbox) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key="openai-key",
        base_url=f"{sandbox.base_url}/openai/v1",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


async def heard(ai: AsyncOpenAI, wav: bytes) -> tuple[str, list[str]]:
    """The transcript and its languages."""
    answer = await ai.audio.transcriptions.create(
        file=("recording.wav", wav, "audio/wav"),
        model="gpt-transcribe",
        languages=["he", "en"],
        keywords=["Haifa"],
    )
    return answer.text, [language.code for language in answer.languages or []]


@pytest.mark.parametrize(
    ("text", "language"), [("Is the flat still free?", "en"), (HEBREW, "he"), ("42", None)]
)
async def test_spoken_words_come_back(ai: AsyncOpenAI, text: str, language: str | None) -> None:
    """What was said into a recording is transcribed, with its language."""
    wav = wav_file(silence(0.3) + speech(2) + silence(2), text=text, source="RE1")
    assert await heard(ai, wav) == (text, [language] if language else [])


async def test_silence_and_other_files(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """Silence is nothing, or an invented phrase; words of a real file aren't known; a file that
    is none is refused."""
    assert await heard(ai, wav_file(silence(3))) == ("", [])
    sandbox.set_faults(Faults(transcription_invents=Fault(times=1)))
    assert await heard(ai, wav_file(silence(3))) == ("Thanks for watching!", ["en"])
    assert await heard(ai, wav_file(speech(1.5))) == ("Somebody spoke for 1.5 seconds.", ["en"])
    with pytest.raises(openai.BadRequestError, match="could not be decoded"):
        await heard(ai, b"<html>not found</html>")


async def test_openai_speaks(ai: AsyncOpenAI) -> None:
    """Speech is MP3 that lasts as long as the text does."""
    text = "Yes, the flat in Haifa is still free."
    answer = await ai.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input=text)
    assert answer.response.headers["Content-Type"] == "audio/mpeg"
    assert mp3_title(answer.content) == text
    assert 2 < mp3_seconds(answer.content) < 4


async def test_a_slow_vendor(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """Latencies hold for every request, and a client that gave up is noted as such."""
    latencies = Latencies(transcription=0.1, speech=0.1, speech_character=0.01, google_speech=30)
    sandbox.set_latencies(latencies)
    await heard(ai, wav_file(speech(1), text="Hello", source="RE1"))
    await ai.audio.speech.create(model="tts-1", voice="alloy", input="0123456789")
    sandbox.set_latencies(Latencies(transcription=30))
    with pytest.raises(openai.APITimeoutError):
        await ai.audio.transcriptions.create(
            file=("r.wav", wav_file(speech(1)), "audio/wav"), model="gpt-transcribe", timeout=1
        )
    calls = sandbox.state.vendor_calls
    await until(lambda: calls[-1].seconds is not None)
    assert [(call.vendor, call.about, call.outcome) for call in calls] == [
        ("transcription", "RE1", "answered"),
        ("speech", "0123456789", "answered"),
        ("transcription", "", "abandoned"),
    ]
    # No less, but for a timer's own precision; more on a busy machine.
    took = [call.seconds or 0 for call in list(calls)[:2]]
    assert took[0] > 0.09
    assert took[1] > 0.19


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (VendorFault(kind="error"), openai.InternalServerError),
        (VendorFault(kind="rate_limited"), openai.RateLimitError),
        (VendorFault(kind="hang"), openai.APITimeoutError),
        (VendorFault(kind="slow", seconds=5), openai.APITimeoutError),
        (VendorFault(kind="cut"), openai.APIConnectionError),
    ],
)
async def test_openai_fails(
    sandbox: RunningSandbox, ai: AsyncOpenAI, fault: VendorFault, error: type[Exception]
) -> None:
    """Every fault reaches the client as the error it knows."""
    sandbox.set_faults(Faults(transcription=fault, speech=fault))
    # Where an answer comes, a busy machine may take its time for it.
    patient = ai.with_options(timeout=0.3 if error is openai.APITimeoutError else 30)
    with pytest.raises(error):
        await heard(patient, wav_file(speech(1)))
    with pytest.raises(error):
        await patient.audio.speech.create(model="tts-1", voice="alloy", input="Hello")


@pytest.mark.parametrize(
    ("said", "tool"),
    [
        ("Thanks, goodbye!", "end_call"),
        ("תודה, להתראות", "end_call"),
        ("Can I speak to a person?", "transfer_to_person"),
        ("אפשר לדבר עם נציג?", "transfer_to_person"),
        ("How much is it?", None),
    ],
)
async def test_tools(ai: AsyncOpenAI, said: str, tool: str | None) -> None:
    """The model ends or transfers a call by a function, after words, and only where it may."""
    tools: list[Any] = [
        {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
        for name in ("end_call", "transfer_to_person")
    ]
    async with ai.responses.stream(model="gpt-6-luna", input=said, tools=tools) as stream:
        final = await stream.get_final_response()
    called = [item.name for item in final.output if item.type == "function_call"]
    assert called == ([tool] if tool else [])
    assert final.output_text
    plain = await ai.responses.create(model="gpt-6-luna", input=said)
    assert [item.type for item in plain.output] == ["message"]


async def test_an_answer_given_up(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """A stream that the client leaves is noted as abandoned."""
    sandbox.set_latencies(Latencies(answer=0.01, answer_word=30))
    stream = await ai.responses.create(model="gpt-6-luna", input="Hello", stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    (call,) = sandbox.state.vendor_calls
    await until(lambda: call.seconds is not None)
    assert call.outcome == "abandoned"


async def test_shutdown_dates(ai: AsyncOpenAI) -> None:
    """Models that end say when."""
    dates = {model.id: model.shutdown_date async for model in ai.models.list()}
    assert dates["tts-1"] == "2027-01-06"
    assert dates["gpt-6-luna"] is None


@contextmanager
def google(
    sandbox: RunningSandbox, account: str, *, own_tokens: bool = False
) -> Iterator[texttospeech.TextToSpeechClient]:
    """Google's client, with tokens from the token endpoint or signed by itself."""
    info = json.loads(account)
    made: Any = jwt.Credentials if own_tokens else service_account.Credentials
    # With a subject the library asks no other host where the account may be used.
    options = {"audience": AUDIENCE} if own_tokens else {"scopes": [SCOPE], "subject": "a@b.c"}
    with texttospeech.TextToSpeechClient(
        credentials=made.from_service_account_info(info, **options),
        transport="rest",
        client_options=ClientOptions(api_endpoint=sandbox.base_url),
    ) as client:
        yield client


def spoken(client: texttospeech.TextToSpeechClient, text: str, language: str = "he-IL") -> bytes:
    """Speech, as messaging asks for it."""
    answer = client.synthesize_speech(
        input=texttospeech.SynthesisInput(text=text),
        voice=texttospeech.VoiceSelectionParams(
            language_code=language, name=f"{language}-Wavenet-A"
        ),
        audio_config=texttospeech.AudioConfig(
            audio_encoding=texttospeech.AudioEncoding.MP3,
            effects_profile_id=["telephony-class-application"],
        ),
        retry=None,
        timeout=5,
    )
    return answer.audio_content


@pytest.mark.parametrize("own_tokens", [False, True])
async def test_google_speaks(sandbox: RunningSandbox, own_tokens: bool) -> None:
    """Google's client gets its token and MP3 by its own configuration."""

    def speak() -> bytes:
        with google(sandbox, sandbox.google_account, own_tokens=own_tokens) as client:
            return spoken(client, HEBREW)

    mp3 = await asyncio.to_thread(speak)
    assert mp3_title(mp3) == HEBREW
    assert mp3_seconds(mp3) > 1
    asked = [(call.vendor, call.about) for call in sandbox.state.vendor_calls]
    assert asked[-1] == ("google_speech", HEBREW)


async def test_google_knows_its_account(sandbox: RunningSandbox) -> None:
    """Another key's assertions and tokens are refused."""
    stranger = new_service_account(sandbox.base_url)

    def ask(own_tokens: bool) -> None:
        with google(sandbox, stranger, own_tokens=own_tokens) as client:
            spoken(client, "Hello")

    with pytest.raises(RefreshError, match="invalid_grant"):
        await asyncio.to_thread(ask, False)
    with pytest.raises(Unauthorized):
        await asyncio.to_thread(ask, True)


async def test_google_refuses(sandbox: RunningSandbox) -> None:
    """Too long a text and an unknown language are invalid; a fault is what it is."""

    def ask(text: str, language: str) -> None:
        with google(sandbox, sandbox.google_account, own_tokens=True) as client:
            spoken(client, text, language)

    for text, language in (("א" * 2501, "he-IL"), ("Hello", "xx-XX")):
        with pytest.raises(BadRequest):
            await asyncio.to_thread(ask, text, language)
    for kind, code in (("error", 503), ("rate_limited", 429)):
        fault = VendorFault.model_validate({"kind": kind, "times": 1})
        sandbox.set_faults(Faults(google_speech=fault))
        with pytest.raises(GoogleAPICallError) as caught:
            await asyncio.to_thread(ask, "Hello", "en-US")
        assert caught.value.code == code


async def test_control(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """Latencies are set and calls are read over the control API; a reset forgets both."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        set_to = await http.put("/sandbox/latencies", json={"speech": 0.01})
        assert (await http.get("/sandbox/latencies")).json() == set_to.json()
        await ai.audio.speech.create(model="tts-1", voice="alloy", input="Hello")
        calls = (await http.get("/sandbox/vendors/calls", params={"vendor": "speech"})).json()
        assert [(call["about"], call["outcome"]) for call in calls] == [("Hello", "answered")]
        account = (await http.get("/sandbox/google/account")).json()
        assert account == json.loads(sandbox.google_account)
        await http.post("/sandbox/reset")
        assert (await http.get("/sandbox/vendors/calls")).json() == []
        assert (await http.get("/sandbox/latencies")).json()["speech"] == 0


def test_wav_holds_what_it_says() -> None:
    """Length, loudness and words can be read back."""
    wav = read_wav(wav_file(silence(1) + speech(2), text=HEBREW, source="RE1"))
    assert (wav.seconds, wav.text, wav.source) == (3, HEBREW, "RE1")
    assert wav.loudest > 3000
    assert read_wav(wav_file(silence(1))).loudest < 100
