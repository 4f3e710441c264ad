"""What callers said is fetched from Twilio, from nowhere else, and deleted there."""

import asyncio
import base64
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from sandbox.phone.wav import speech, wav_file
from services.common.errors import UnavailableError
from services.messaging.ports.speech import RecordingMissingError, RecordingRefusedError
from services.messaging.providers.twilio.recordings import TwilioRecordings
from tests.support.hostile import endless, head, hostile, sends_to
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
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN

RECORDING = "RE0123456789abcdef0123456789abcdef"
PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{RECORDING}"
WAV = wav_file(speech(1))
BASIC = base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()

GOOD = answering(WAV, content_type="audio/x-wav")
NOT_THERE = answering(b'{"code": 20404}', status="404 Not Found")


@asynccontextmanager
async def recordings(
    base_url: str, *, max_bytes: int = 100_000, seconds: float = 10
) -> AsyncIterator[TwilioRecordings]:
    one = TwilioRecordings(
        account_sid=ACCOUNT_SID,
        auth_token=SecretStr(AUTH_TOKEN),
        base_url=base_url,
        max_bytes=max_bytes,
        timeout_seconds=seconds,
    )
    try:
        yield one
    finally:
        await one.close()


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last one for ever."""

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await answers[min(len(peer.requests), len(answers)) - 1](peer, writer)

    return answer


async def test_a_recording_is_fetched_as_wav() -> None:
    """The file comes from the address with .wav, by the account's credentials, warm."""
    async with running_peer(GOOD) as twilio, recordings(twilio.base_url) as one:
        assert await one.fetch(RECORDING, twilio.base_url + PATH) == WAV
        assert await one.fetch(RECORDING, f"{twilio.base_url}{PATH}.wav") == WAV
    for request, _ in twilio.requests:
        assert request.startswith(f"GET {PATH}.wav HTTP/1.1\r\n")
        assert f"Authorization: Basic {BASIC}" in request
    assert twilio.connections == 1


async def test_a_file_that_isn_t_there_yet_is_waited_for() -> None:
    """A webhook may come before its recording's file."""
    answers = in_turn(NOT_THERE, NOT_THERE, GOOD)
    async with running_peer(answers) as twilio, recordings(twilio.base_url) as one:
        assert await one.fetch(RECORDING, twilio.base_url + PATH) == WAV
    assert len(twilio.requests) == 3


async def test_a_file_that_never_comes_is_missing() -> None:
    """Waiting for a file has an end, after some looks."""
    async with running_peer(NOT_THERE) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingMissingError):
            await one.fetch(RECORDING, twilio.base_url + PATH)
    assert len(twilio.requests) == 6


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        f"https://example.com{PATH}",
        f"https://twilio.com.example.com{PATH}",
        f"https://eviltwilio.com{PATH}",
        f"http://api.twilio.com{PATH}",
        f"https://api.twilio.com:8443{PATH}",
        f"https://user:pass@api.twilio.com{PATH}",
        f"https://api.twilio.com@127.0.0.1{PATH}",
        f"http://127.0.0.1:1{PATH}",
        f"http://localhost{PATH}",
        f"//api.twilio.com{PATH}",
        f"https://api.twilio.com\\@127.0.0.1{PATH}",
        f"https://api.twilio.com{PATH}\r\nX: y",
        f"https://169.254.169.254{PATH}",
        f"https://[::ffff:127.0.0.1]{PATH}",
        "",
        "x" * 5000,
    ],
)
async def test_only_addresses_of_twilio_are_asked(url: str) -> None:
    """An address in a webhook that isn't Twilio's, or the sandbox's, is never asked."""
    async with running_peer(GOOD) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingRefusedError, match=r"not one of Twilio's|malformed"):
            await one.fetch(RECORDING, url)
    assert twilio.requests == []


@pytest.mark.parametrize(
    ("recording", "path"),
    [
        (RECORDING, "/"),
        (RECORDING, PATH.replace(ACCOUNT_SID, "AC" + "f" * 32)),
        (RECORDING, PATH.replace(RECORDING, "RE" + "f" * 32)),
        (RECORDING, f"{PATH}.json"),
        (RECORDING, f"{PATH}.wav.wav"),
        (RECORDING, f"{PATH}?x=1"),
        (RECORDING, f"{PATH}#x"),
        (RECORDING, f"{PATH}/../../Messages/{RECORDING}"),
        (RECORDING, PATH.replace("RE", "%52E")),
        ("../Messages", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/../Messages"),
        ("", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/"),
        (RECORDING + "\n", PATH),
    ],
)
async def test_only_this_recording_of_this_account(recording: str, path: str) -> None:
    """The credentials open nothing but the recording that the webhook is about."""
    async with running_peer(GOOD) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingRefusedError, match="not that of this account's recording"):
            await one.fetch(recording, twilio.base_url + path)
        await one.delete("../../Messages")
    assert twilio.requests == []


async def test_the_sandbox_s_machine_is_asked_only_when_twilio_is_there() -> None:
    """With the real Twilio configured, an address on this machine is refused."""
    async with running_peer(GOOD) as here, recordings("https://api.twilio.com") as one:
        with pytest.raises(RecordingRefusedError, match="not one of Twilio's"):
            await one.fetch(RECORDING, here.base_url + PATH)
    assert here.requests == []


async def test_credentials_do_not_follow_a_redirect() -> None:
    """A redirect is followed once, without credentials, even on one machine."""
    async with (
        running_peer(GOOD) as other,
        hostile(sends_to(f"{other.base_url}/a%2Fb")) as twilio,
        recordings(twilio.base_url) as one,
    ):
        assert await one.fetch(RECORDING, twilio.base_url + PATH) == WAV
    assert "authorization: basic" in twilio.requests[0].lower()
    [(request, _)] = other.requests
    assert "authorization" not in request.lower()
    assert request.startswith("GET /a%2Fb HTTP/1.1")
    async with hostile(sends_to("{here}/again")) as itself, recordings(itself.base_url) as one:
        with pytest.raises(RecordingRefusedError, match="more than once"):
            await one.fetch(RECORDING, itself.base_url + PATH)
    assert [("authorization" in request.lower()) for request in itself.requests] == [True, False]


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://0.0.0.0/",
        "http://8.8.8.8/",
        "file:///etc/passwd",
        "https://user:secret@example.com/",
        "",
        "https://[::1/",
    ],
)
async def test_a_redirect_into_a_network_of_ours_is_refused(location: str) -> None:
    """No connection is made to an address that isn't public, however it is written."""
    async with hostile(sends_to(location)) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingRefusedError):
            await one.fetch(RECORDING, twilio.base_url + PATH)
    assert len(twilio.requests) == 1


async def compressed(host: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "Content-Encoding: gzip", "Content-Length: 4") + b"data")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answering(b"R" * 100_001), "larger than 100000 bytes"),
        (answering(b"<html>no recording</html>", content_type="text/html"), "no WAV"),
        (answering(b"ID3\x03\0\0\0\0\0\0\0\0\0", content_type="audio/mpeg"), "no WAV"),
        (answering(b"", content_type="audio/x-wav"), "no WAV"),
        (answering(b"", status="204 No Content"), "HTTP 204"),
        (answering(b"", status="400 Bad Request"), "HTTP 400"),
        (compressed, "compressed"),
    ],
)
async def test_what_is_no_recording_is_refused(answer: Any, why: str) -> None:
    """What is too large or not audio is not taken, and not asked for again."""
    async with running_peer(answer) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingRefusedError, match=why):
            await one.fetch(RECORDING, twilio.base_url + PATH)
    assert len(twilio.requests) == 1


async def test_a_recording_without_an_end_is_cut_off() -> None:
    """The limit holds while the file arrives, whatever its length was said to be."""
    async with hostile(endless) as twilio, recordings(twilio.base_url) as one:
        with pytest.raises(RecordingRefusedError, match="larger than 100000 bytes"):
            await one.fetch(RECORDING, twilio.base_url + PATH)


@pytest.mark.parametrize(
    "answer",
    [
        answering(b"{}", status="401 Unauthorized"),
        answering(b"{}", status="403 Forbidden"),
        answering(b"{}", status="429 Too Many Requests"),
        answering(b"{}", status="500 Internal Server Error"),
        answering(WAV, cut=100),
        dripping("audio/x-wav"),
        silent,
        hanging_up,
    ],
)
async def test_trouble_has_an_end(answer: Answer) -> None:
    """Whatever goes wrong at Twilio, it ends in time, can be tried again and leaks nothing."""
    async with (
        running_peer(answer) as twilio,
        recordings(twilio.base_url, seconds=patience(answer)) as one,
    ):
        with pytest.raises(UnavailableError) as caught:
            await one.fetch(RECORDING, twilio.base_url + PATH)
    told = "".join(traceback.format_exception(caught.value))
    assert AUTH_TOKEN not in told
    assert BASIC not in told


async def test_cancelling_ends_the_request() -> None:
    """When the call ends, the connection is closed."""
    async with running_peer(silent) as twilio, recordings(twilio.base_url) as one:
        task = asyncio.create_task(one.fetch(RECORDING, twilio.base_url + PATH))
        await twilio.asked.wait()
        task.cancel()
        await asyncio.wait_for(twilio.left.wait(), 60)
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found"])
async def test_deleting(status: str) -> None:
    """A recording is deleted at Twilio; one that is gone already is deleted."""
    async with running_peer(answering(b"", status=status)) as twilio:
        async with recordings(twilio.base_url) as one:
            await one.delete(RECORDING)
        [(request, _)] = twilio.requests
    assert request.startswith(f"DELETE {PATH}.json HTTP/1.1\r\n")
    assert f"Authorization: Basic {BASIC}" in request


@pytest.mark.parametrize(
    "answer",
    [
        answering(b"", status="401 Unauthorized"),
        answering(b"", status="302 Found"),
        answering(b"", status="500 Internal Server Error"),
        silent,
        hanging_up,
    ],
)
async def test_deleting_that_fails_is_told(answer: Answer) -> None:
    """What may not be deleted yet is to be tried again."""
    async with (
        running_peer(answer) as twilio,
        recordings(twilio.base_url, seconds=patience(answer)) as one,
    ):
        with pytest.raises(UnavailableError):
            await one.delete(RECORDING)
