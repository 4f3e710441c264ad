"""Recordings of the sandbox's calls, and what goes wrong with them and with callbacks."""

import asyncio
import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from sandbox.faults import (
    CallStatuses,
    Fault,
    Faults,
    RecordingCallback,
    RecordingContent,
    RecordingElsewhere,
    RecordingLate,
)
from sandbox.phone.scenario import Scenario, Turn
from sandbox.phone.wav import read_wav, silence, speech, wav_file
from tests.support.phone import INCOMING, STATUS, Telephone, entries, telephone
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN, twilio_client

RECORD = (
    '<Record action="/recorded" timeout="2" playBeep="false" trim="do-not-trim"'
    ' recordingStatusCallback="/status?turn=1" recordingStatusCallbackEvent="completed absent"/>'
)


@pytest.fixture
async def phone() -> AsyncIterator[Telephone]:
    async with telephone() as phone:
        phone.app.on(INCOMING, RECORD)
        yield phone


def url_of(phone: Telephone) -> str:
    """The latest recording's address, as the action had it."""
    return str(phone.app.asked("/recorded")[-1].form["RecordingUrl"])


async def get(url: str, auth: tuple[str, str] | None = (ACCOUNT_SID, AUTH_TOKEN)) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        return await http.get(url, auth=auth)


async def test_a_recording_holds_what_was_said(phone: Telephone) -> None:
    """The file is WAV with the words inside, given to the account's owner alone; Twilio's SDK
    reads what is known of it and deletes it."""
    await phone.call("הדירה עדיין פנויה?")
    url = url_of(phone)
    assert (await get(url, auth=None)).status_code == 401
    assert (await get(url.replace(ACCOUNT_SID, "AC" + "0" * 32))).status_code == 404
    wav = await get(f"{url}.wav")
    assert wav.headers["Content-Type"] == "audio/x-wav"
    heard = read_wav(wav.content)
    sid = url.rpartition("/")[2]
    assert (heard.text, heard.source) == ("הדירה עדיין פנויה?", sid)
    assert heard.seconds == pytest.approx(0.3 + 18 / 14 + 2, abs=0.01)
    assert (await get(f"{url}.mp3")).headers["Content-Type"] == "audio/mpeg"
    with twilio_client(phone.sandbox.base_url) as client:

        def read_and_delete() -> tuple[str, str, bool]:
            recording = client.recordings(sid).fetch()
            return recording.status, recording.duration, client.recordings(sid).delete()

        assert await asyncio.to_thread(read_and_delete) == ("completed", "4", True)
    assert (await get(f"{url}.wav")).status_code == 404
    fetched = [call for call in phone.sandbox.state.vendor_calls if call.vendor == "recording"]
    assert {call.about for call in fetched} == {sid}


async def test_a_file_is_played_into_the_call(phone: Telephone) -> None:
    """A caller may speak from a file; its words are nobody's to know."""
    wav = wav_file(speech(1.5), text="secret")
    await phone.call(Turn(wav=base64.b64encode(wav).decode()))
    heard = read_wav((await get(url_of(phone))).content)
    assert heard.text is None
    assert heard.seconds == pytest.approx(0.3 + 1.5 + 2)
    with pytest.raises(ValueError, match="doesn't begin as a WAV file"):
        Turn(wav=base64.b64encode(b"MP3").decode())


async def test_trimming(phone: Telephone) -> None:
    """Silence is cut off where that is asked for."""
    phone.app.on(INCOMING, '<Record action="/recorded" timeout="9" trim="trim-silence"/>')
    await phone.call("Hello there")
    assert read_wav((await get(url_of(phone))).content).seconds < 2


async def test_status_callback(phone: Telephone) -> None:
    """recordingStatusCallback comes after the action, signed, with what Twilio says."""
    await phone.call("Hello")
    (told,) = phone.app.asked("/status")
    assert told.query == "turn=1"
    assert told.signed_by(AUTH_TOKEN)
    assert told.form["RecordingStatus"] == "completed"
    assert told.form["RecordingUrl"] == url_of(phone)


async def test_callbacks_early_twice_or_never(phone: Telephone) -> None:
    """It may come before the action, several times, or not at all."""
    early = RecordingCallback(when="before", copies=2)
    phone.sandbox.set_faults(Faults(recording_callback=early))
    await phone.call("Hello")
    assert phone.app.paths()[:4] == [INCOMING, "/status", "/status", "/recorded"]
    phone.sandbox.set_faults(Faults(recording_callback=RecordingCallback(when="never")))
    phone.app.received.clear()
    await phone.call("Hello")
    assert not phone.app.asked("/status")


async def test_call_statuses(phone: Telephone) -> None:
    """Status callbacks come in any order, and several times."""
    order = CallStatuses(order=["completed", "ringing", "in-progress"], copies=2)
    phone.sandbox.set_faults(Faults(call_statuses=order))
    await phone.call("Hello")
    told = [webhook.form["CallStatus"] for webhook in phone.app.asked(STATUS)]
    assert told == ["completed"] * 2 + ["ringing"] * 2 + ["in-progress"] * 2
    phone.sandbox.set_faults(Faults(call_statuses=CallStatuses(order=[])))
    phone.app.received.clear()
    await phone.call("Hello")
    assert not phone.app.asked(STATUS)


async def test_a_late_recording(phone: Telephone) -> None:
    """The file isn't there yet when the action says where it will be."""
    phone.sandbox.set_faults(Faults(recording_late=RecordingLate(seconds=600)))
    await phone.call("Hello")
    assert (await get(url_of(phone))).status_code == 404
    assert (await get(url_of(phone) + ".json")).status_code == 200


async def test_an_absent_recording(phone: Telephone) -> None:
    """Twilio says that there is none after all, and has none."""
    phone.sandbox.set_faults(Faults(recording_absent=Fault(times=1)))
    await phone.call("Hello")
    (told,) = phone.app.asked("/status")
    assert told.form["RecordingStatus"] == "absent"
    assert (await get(url_of(phone))).status_code == 404


@pytest.mark.parametrize(
    ("kind", "seconds", "size"),
    [("not_audio", "3", 47), ("empty", "0", None), ("hour", "3600", 3600 * 16000)],
)
async def test_odd_recordings(phone: Telephone, kind: str, seconds: str, size: int | None) -> None:
    """The file is no audio, has no sound, or an hour of it."""
    fault = RecordingContent.model_validate({"kind": kind})
    phone.sandbox.set_faults(Faults(recording_content=fault))
    await phone.call("Hello")
    assert phone.app.asked("/recorded")[0].form["RecordingDuration"] == seconds
    content = (await get(url_of(phone))).content
    if size is None:
        assert read_wav(content).seconds == 0
    else:
        assert abs(len(content) - size) < 200


async def test_an_address_elsewhere(phone: Telephone) -> None:
    """The webhook may name any address."""
    url = "https://evil.example/2010-04-01/Accounts/AC0/Recordings/RE0"
    phone.sandbox.set_faults(Faults(recording_elsewhere=RecordingElsewhere(url=url)))
    await phone.call("Hello")
    assert url_of(phone) == url


async def test_control_api(phone: Telephone) -> None:
    """A call is made, watched as it goes on, and ended over HTTP."""
    phone.app.on(INCOMING, '<Pause length="600"/>')
    async with httpx.AsyncClient(
        base_url=phone.sandbox.base_url, timeout=60, trust_env=False
    ) as http:
        assert (await http.get("/sandbox/calls/CA0")).status_code == 404
        refused = await http.post("/sandbox/calls", json={"caller": "052"})
        assert refused.status_code == 422
        made = await http.post("/sandbox/calls", json={"speed": 20})
        address = f"/sandbox/calls/{made.json()['sid']}"
        known: list[str] = []
        while "pausing" not in known:
            news = await http.get(f"{address}/timeline", params={"after": len(known), "wait": 10})
            known += [entry["kind"] for entry in news.json()]
        assert known == ["ringing", "webhook", "pausing"]
        await http.post(f"{address}/hang-up")
        await phone.sandbox.settled()
        ended = (await http.get(address)).json()
        assert ended["status"] == "completed"
        assert [entry["kind"] for entry in ended["timeline"]][-2:] == ["ended", "status_callback"]
        assert (await http.get("/sandbox/calls")).json() == [ended]
        await http.post("/sandbox/reset")
        assert (await http.get("/sandbox/calls")).json() == []


async def test_calls_at_the_same_time(phone: Telephone) -> None:
    """Calls don't wait for each other, and each has its own words."""
    phone.app.on("/recorded", "<Hangup/>")
    calls = [
        phone.sandbox.call(Scenario(turns=[Turn(text=f"Number {number}")], speed=20))
        for number in range(5)
    ]
    await phone.sandbox.settled()
    said = [entry.text for call in calls for entry in entries(call, "speaking")]
    assert said == [f"Number {number}" for number in range(5)]


def test_silence_is_quiet() -> None:
    """An energy gate can tell silence from speech."""
    assert read_wav(wav_file(silence(2))).loudest < 50 < read_wav(wav_file(speech(2))).loudest
