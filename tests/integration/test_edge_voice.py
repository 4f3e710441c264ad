"""Webhooks of calls over HTTP, with a real NATS and a pretend messaging behind them."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from nats.aio.client import Client
from switchboard.events.v1 import events_pb2
from switchboard.voice.v1 import script_pb2

from services.common.audio import AudioBucket, BucketConfig
from services.common.errors import InvalidInputError, UnavailableError
from services.common.journal.events import EventKind, JournalEvent
from tests.support.api import PretendMessaging, served
from tests.support.edge import FORM, PUBLIC_HOST, Edge, journal_client, running_edge, stored, until
from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.voice import (
    CALL_SID,
    CALLED,
    CALLER,
    RECORDING_SID,
    PretendVoice,
    call_webhook,
    recording_webhook,
    script,
)

CALL = "/webhook/incoming_call"
RECORDING = "/webhook/handle_recording"
RECORDING_STATUS = "/webhook/recording_status"
CONTINUE = "/webhook/voice/continue"
CALL_STATUS = "/webhook/call_status"
EMPTY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


@pytest.fixture
def voice() -> PretendVoice:
    return PretendVoice()


@pytest.fixture
async def messaging(voice: PretendVoice) -> AsyncIterator[str]:
    async with served(PretendMessaging(), voice) as address:
        yield address


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal_client(nats_server.url) as client:
        yield client


@pytest.fixture
async def edge(client: Client, messaging: str, tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(client, tmp_path / "spill.db", messaging=messaging) as edge:
        yield edge


async def journal(server: NatsServer) -> list[tuple[JournalEvent, events_pb2.WebhookReceived]]:
    events = [JournalEvent.parse(m.headers, m.data) for m in await stored(server.url)]
    return [(event, events_pb2.WebhookReceived.FromString(event.data)) for event in events]


def verbs(response: httpx.Response) -> list[ET.Element]:
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/xml")
    return list(ET.fromstring(response.content))


def is_voicemail(response: httpx.Response, turn: int) -> bool:
    found = verbs(response)
    assert [verb.tag for verb in found] == ["Say", "Record", "Say", "Hangup"]
    return f"turn={turn}&voicemail=1" in found[1].get("action", "")


def target(address: str | None) -> str:
    """What an absolute address of ours is at the edge: how to connect is for Twilio alone."""
    assert address is not None
    assert address.startswith(PUBLIC_HOST)
    return address.removeprefix(PUBLIC_HOST).partition("#")[0]


async def test_a_call_is_journaled_and_answered(
    edge: Edge, nats_server: NatsServer, voice: PretendVoice
) -> None:
    """The event is on disk as it came, and messaging's script is what the caller hears."""
    parameters = call_webhook(CallStatus="ringing", CallerName="NOA LEVI", SomethingNew="1")
    found = verbs(await edge.post(CALL, parameters))
    assert [verb.tag for verb in found] == ["Play", "Record", "Redirect"]
    [(event, received)] = await journal(nats_server)
    assert (event.kind, event.key, event.source) == (
        EventKind.VOICE_CALL, f"call:{CALL_SID}", CALL,
    )  # fmt: skip
    assert {one.name: one.value for one in received.parameters} == parameters
    [asked] = voice.requests
    assert (asked.provider, asked.call_id, asked.caller, asked.called) == (
        "twilio", CALL_SID, CALLER, CALLED,
    )  # fmt: skip
    assert asked.HasField("incoming")
    assert voice.remaining[0] < 3.1
    assert edge.count("journaled", "incoming_call") == 1


async def test_a_call_goes_on_at_the_addresses_it_was_given(
    edge: Edge, nats_server: NatsServer, voice: PretendVoice
) -> None:
    """Each address in a script comes back as the step that messaging meant by it."""
    _, record, redirect = verbs(await edge.post(CALL, call_webhook()))
    voice.script = script(
        script_pb2.Step(say=script_pb2.Say(text="Let me see.", language="en-US")),
        script_pb2.Step(redirect=script_pb2.Redirect(turn=1, part=2)),
    )
    _, after_part = verbs(await edge.post(target(record.get("action")), recording_webhook()))
    voice.script = script(
        script_pb2.Step(dial=script_pb2.Dial(number="+97231234567", timeout_seconds=20, turn=1))
    )
    [dial] = verbs(await edge.post(target(after_part.text), call_webhook()))
    dialed = call_webhook(DialCallStatus="completed")
    await edge.post(target(dial.get("action")), dialed)
    await edge.post(target(redirect.text), call_webhook())
    status = recording_webhook(RecordingStatus="completed")
    thanks = await edge.post(target(record.get("recordingStatusCallback")), status)
    assert thanks.text == EMPTY
    ended = await edge.post(CALL_STATUS, call_webhook(CallStatus="completed", CallDuration="41"))
    assert ended.text == EMPTY

    _, recorded, played, dialed_, silent = voice.requests
    assert (recorded.recorded.turn, recorded.recorded.recording_id) == (1, RECORDING_SID)
    assert (recorded.recorded.duration_seconds, recorded.recorded.voicemail) == (4, False)
    assert (played.played.turn, played.played.part) == (1, 2)
    assert (dialed_.dialed.turn, dialed_.dialed.answered) == (1, True)
    assert silent.silent.turn == 1
    assert [(event.kind, event.key) for event, _ in await journal(nats_server)] == [
        (EventKind.VOICE_CALL, f"call:{CALL_SID}"),
        (EventKind.VOICE_RECORDING, f"recording:{RECORDING_SID}:action"),
        (EventKind.VOICE_CONTINUATION, f"continue:{CALL_SID}:1:part:2"),
        (EventKind.VOICE_CONTINUATION, f"continue:{CALL_SID}:1:dial:0"),
        (EventKind.VOICE_CONTINUATION, f"continue:{CALL_SID}:1:silence:0"),
        (EventKind.VOICE_RECORDING, f"recording:{RECORDING_SID}:completed"),
        (EventKind.VOICE_STATUS, f"callstatus:{CALL_SID}:completed"),
    ]


async def test_a_caller_without_a_number_is_put_through(edge: Edge, voice: PretendVoice) -> None:
    """The person is shown ours instead; any other caller's own number."""
    voice.script = script(script_pb2.Step(dial=script_pb2.Dial(number="+97231234567", turn=1)))
    for caller, shown in ((CALLER, None), ("+266696687", CALLED)):
        [dial] = verbs(await edge.post(RECORDING + "?turn=1", recording_webhook(From=caller)))
        assert dial.get("callerId") == shown


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled", ""])
async def test_a_person_who_was_not_reached(edge: Edge, voice: PretendVoice, status: str) -> None:
    """Whatever kept them away, messaging hears that nobody answered."""
    await edge.post(f"{CONTINUE}?turn=2&after=dial", call_webhook(DialCallStatus=status))
    assert not voice.requests[0].dialed.answered


async def test_an_answer_is_held_until_it_is_there(edge: Edge, voice: PretendVoice) -> None:
    """The request waits for messaging, which is told how long it may, and has a second more.

    Twilio's 15 s are enough for three tries, should two edges die in the end.
    """
    voice.ready.clear()
    waiting = asyncio.create_task(edge.post(f"{RECORDING}?turn=1", recording_webhook()))
    await until(lambda: bool(voice.requests))
    assert not waiting.done()
    assert 2000 < voice.requests[0].hold_ms <= 4000
    assert 1000 * voice.remaining[0] > voice.requests[0].hold_ms
    assert 3 * voice.remaining[0] < 15
    voice.ready.set()
    assert verbs(await waiting)[0].tag == "Play"


async def test_a_caller_who_hung_up_is_not_waited_for(
    edge: Edge, nats_server: NatsServer, voice: PretendVoice
) -> None:
    """What was said is journaled; nobody is asked what they'd hear next."""
    voice.ready.clear()
    response = await edge.post(f"{RECORDING}?turn=1", recording_webhook(Digits="hangup"))
    assert response.text == EMPTY
    assert voice.requests == []
    assert len(await journal(nats_server)) == 1


@pytest.mark.parametrize("language", ["en-US", "he-IL"])
async def test_without_messaging_a_caller_gets_voicemail(
    client: Client, nats_server: NatsServer, tmp_path: Path, language: str
) -> None:
    """Nobody listens where messaging should be: each step of a call still has words."""
    async with running_edge(
        client,
        tmp_path / "spill.db",
        voice_language=language,  # type: ignore[arg-type]  # one of the two
        answer_seconds=0.1,
        hold_seconds=0.1,
    ) as edge:
        greeting = await edge.post(CALL, call_webhook())
        assert is_voicemail(greeting, turn=1)
        assert verbs(greeting)[0].get("language") == language
        left = verbs(greeting)[1].get("action")
        goodbye = await edge.post(target(left), recording_webhook())
        assert [verb.tag for verb in verbs(goodbye)] == ["Say", "Hangup"]

        patience = verbs(await edge.post(f"{RECORDING}?turn=3", recording_webhook()))
        assert [verb.tag for verb in patience] == ["Say", "Redirect"]
        assert is_voicemail(await edge.post(target(patience[1].text), call_webhook()), turn=4)
        for query in ("after=silence", "after=part&part=1", "after=dial"):
            went_on = await edge.post(f"{CONTINUE}?turn=3&{query}", call_webhook())
            assert is_voicemail(went_on, turn=4)
        answered = call_webhook(DialCallStatus="completed")
        goodbye = await edge.post(f"{CONTINUE}?turn=3&after=dial", answered)
        assert [verb.tag for verb in verbs(goodbye)] == ["Say", "Hangup"]
    assert len(await journal(nats_server)) == 6


async def test_messaging_that_is_too_slow(
    client: Client, messaging: str, tmp_path: Path, voice: PretendVoice
) -> None:
    """The deadline passes, and the caller gets voicemail; who has asked something, first a word."""
    voice.ready.clear()
    async with running_edge(
        client, tmp_path / "spill.db", messaging=messaging, answer_seconds=0.2, hold_seconds=0.2
    ) as edge:
        assert is_voicemail(await edge.post(CALL, call_webhook()), turn=1)
        patience = verbs(await edge.post(f"{RECORDING}?turn=1", recording_webhook()))
        assert [verb.tag for verb in patience] == ["Say", "Redirect"]
        assert is_voicemail(await edge.post(target(patience[1].text), call_webhook()), turn=2)


@pytest.mark.parametrize("fault", ["refuses", "fails", "nothing", "unknown"])
async def test_messaging_that_has_nothing_to_say(
    edge: Edge, voice: PretendVoice, fault: str
) -> None:
    """It refuses, fails, or gives no script, or none that is known here: voicemail."""
    if fault == "refuses":
        voice.error = InvalidInputError("call_id", "is unknown")
    elif fault == "fails":
        voice.error = UnavailableError("the database is away")
    elif fault == "nothing":
        voice.script = script_pb2.Script()
    else:
        voice.script = script(script_pb2.Step())
    assert is_voicemail(await edge.post(CALL, call_webhook()), turn=1)
    labels = {"after": "incoming", "source": "edge"}
    assert edge.registry.get_sample_value("switchboard_call_answers_total", labels) == 1


async def test_messaging_that_just_restarts(client: Client, tmp_path: Path) -> None:
    """A call that comes in meanwhile is answered by it, not by voicemail."""
    port = free_port()
    async with running_edge(
        client, tmp_path / "spill.db", messaging=f"127.0.0.1:{port}", answer_seconds=20
    ) as edge:
        waiting = asyncio.create_task(edge.post(CALL, call_webhook()))
        await until(lambda: edge.count("journaled", "incoming_call") == 1)
        async with served(PretendMessaging(), port=port):
            assert verbs(await waiting)[0].tag == "Play"


async def test_a_caller_waits_for_messaging_that_just_restarts(
    client: Client, tmp_path: Path
) -> None:
    """What a caller said is answered by it, though it is away longer than a new call is held."""
    port = free_port()
    async with running_edge(
        client,
        tmp_path / "spill.db",
        messaging=f"127.0.0.1:{port}",
        answer_seconds=0.1,
        hold_seconds=20,
    ) as edge:
        asked = edge.post(f"{RECORDING}?turn=1", recording_webhook())
        waiting = asyncio.create_task(asked)
        await until(lambda: edge.count("journaled", "handle_recording") == 1)
        await edge.post(CALL, call_webhook())
        async with served(PretendMessaging(), port=port):
            assert [verb.tag for verb in verbs(await waiting)] == ["Play", "Record", "Redirect"]


@pytest.mark.parametrize("fault", ["missing", "broker away"])
async def test_what_cannot_be_played_is_said(
    client: Client,
    nats_server: NatsServer,
    messaging: str,
    voice: PretendVoice,
    tmp_path: Path,
    fault: str,
) -> None:
    """Twilio ends a call when it can't fetch what it is to play; so it is told to say it."""
    words = script_pb2.Say(text="שלום", language="he-IL")
    there, missing = "a" * 64, "b" * 64
    plays = (script_pb2.Play(audio_id=audio_id, words=words) for audio_id in (there, missing))
    voice.script = script(*(script_pb2.Step(play=play) for play in plays))
    config = BucketConfig(timedelta(days=1), replicas=1)
    await AudioBucket(client, config=config).put(there, b"\xff\xfb\x90\x00")
    async with running_edge(client, tmp_path / "spill.db", messaging=messaging) as edge:
        if fault == "broker away":
            assert verbs(await edge.post(CALL, call_webhook()))[0].tag == "Play"
            nats_server.stop()
            await until(lambda: not edge.journal.connected)
        found = verbs(await edge.post(CALL, call_webhook()))
        first = "Play" if fault == "missing" else "Say"
        assert [verb.tag for verb in found] == [first, "Say", "Hangup"]
        assert (found[1].text, found[1].get("language")) == ("שלום", "he-IL")


async def test_without_a_broker_the_event_is_spilled_and_the_call_goes_on(
    client: Client, nats_server: NatsServer, messaging: str, tmp_path: Path
) -> None:
    """The call is as good as ever, and its event on the local disk."""
    async with running_edge(client, tmp_path / "spill.db", messaging=messaging) as edge:
        nats_server.stop()
        await until(lambda: not edge.journal.connected)
        assert verbs(await edge.post(CALL, call_webhook()))[0].tag == "Play"
        assert (edge.spill.events, edge.count("spilled", "incoming_call")) == (1, 1)


async def test_an_event_that_cannot_be_stored_gets_no_2xx_but_its_caller_gets_words(
    client: Client, nats_server: NatsServer, messaging: str, tmp_path: Path, voice: PretendVoice
) -> None:
    """The caller is led to voicemail, whose address acknowledges nothing; reports get 503."""
    async with running_edge(
        client, tmp_path / "spill.db", messaging=messaging, spill_max_bytes=1
    ) as edge:
        nats_server.stop()
        await until(lambda: not edge.journal.connected)
        for path, parameters, expected in (
            (CALL, call_webhook(), 1),
            (f"{RECORDING}?turn=3", recording_webhook(), 4),
            (f"{CONTINUE}?turn=3&after=silence", call_webhook(), 4),
        ):
            refused = await edge.post(path, parameters)
            assert refused.status_code == 302
            led = await edge.http.get(target(refused.headers["location"]))
            assert is_voicemail(led, turn=expected)
        refused = await edge.post(f"{RECORDING}?turn=3&voicemail=1", recording_webhook())
        led = await edge.http.get(target(refused.headers["location"]))
        assert [verb.tag for verb in verbs(led)] == ["Say", "Hangup"]
        status = await edge.post(CALL_STATUS, call_webhook())
        assert (status.status_code, status.headers["retry-after"]) == (503, "5")
        assert edge.count("unavailable", "incoming_call") == 1
    assert voice.requests == []


@pytest.mark.parametrize(
    ("path", "parameters", "named"),
    [
        (CALL, {"From": CALLER}, "CallSid"),
        (CALL_STATUS, {"CallSid": CALL_SID}, "CallStatus"),
        (CALL_STATUS, {"CallStatus": "completed"}, "CallSid"),
        (f"{RECORDING}?turn=1", {"RecordingSid": RECORDING_SID}, "CallSid"),
        (f"{RECORDING}?turn=1", call_webhook(), "RecordingSid"),
        (RECORDING, recording_webhook(), "turn"),
        (f"{RECORDING}?turn=abc", recording_webhook(), "turn"),
        (f"{RECORDING}?turn=-1", recording_webhook(), "turn"),
        (f"{RECORDING}?turn=0", recording_webhook(), "turn"),
        (f"{RECORDING}?turn=%D9%A1", recording_webhook(), "turn"),
        (f"{RECORDING}?turn={10**9}", recording_webhook(), "turn"),
        (f"{RECORDING_STATUS}?turn=1", recording_webhook(), "RecordingStatus"),
        (f"{RECORDING_STATUS}?turn=x", recording_webhook(RecordingStatus="absent"), "turn"),
        (f"{CONTINUE}?turn=1", call_webhook(), "after"),
        (f"{CONTINUE}?turn=1&after=lunch", call_webhook(), "after"),
        (f"{CONTINUE}?turn=1&after=part", call_webhook(), "part"),
        (f"{CONTINUE}?turn=1&after=part&part={10**9}", call_webhook(), "part"),
        (f"{CONTINUE}?turn=1&after=part&part=-1", call_webhook(), "part"),
        (f"{CONTINUE}?turn=1&after=silence", {"From": CALLER}, "CallSid"),
    ],
)
async def test_what_cannot_be_identified_is_400(
    edge: Edge, nats_server: NatsServer, path: str, parameters: dict[str, str], named: str
) -> None:
    """Signed, but not a step of a call: refused by the name of what is wrong."""
    response = await edge.post(path, parameters)
    assert response.status_code == 400
    assert response.text.startswith(named)
    assert await journal(nats_server) == []


async def test_of_repeated_parameters_the_first_counts(
    edge: Edge, nats_server: NatsServer, voice: PretendVoice
) -> None:
    """As in the event's key, so that both mean the same step."""
    await edge.post(f"{CONTINUE}?turn=2&turn=3&after=part&after=silence&part=4", call_webhook())
    assert (voice.requests[0].played.turn, voice.requests[0].played.part) == (2, 4)
    [(event, _)] = await journal(nats_server)
    assert event.key == f"continue:{CALL_SID}:2:part:4"


@pytest.mark.parametrize("seconds", ["", "-1", "four", str(10**12), "1e3"])
async def test_an_absurd_duration_is_no_reason_to_lose_a_caller(
    edge: Edge, voice: PretendVoice, seconds: str
) -> None:
    """It is only a hint; what was said is what counts."""
    parameters = recording_webhook(RecordingDuration=seconds)
    assert verbs(await edge.post(f"{RECORDING}?turn=1", parameters))[0].tag == "Play"
    assert voice.requests[0].recorded.duration_seconds == 0


@pytest.mark.parametrize(
    "path", [CALL, f"{RECORDING}?turn=1", RECORDING_STATUS, CALL_STATUS, f"{CONTINUE}?turn=1"]
)
async def test_only_signed_posts_are_taken(
    edge: Edge, nats_server: NatsServer, voice: PretendVoice, path: str
) -> None:
    """No signature is 400, a wrong one 403, and GET says which method is right."""
    form = {"content-type": FORM}
    body = urlencode(recording_webhook())
    unsigned = await edge.http.post(path, content=body, headers=form)
    wrong = await edge.post(path, recording_webhook(), {"x-twilio-signature": "bad"})
    got = await edge.http.get(path)
    assert [unsigned.status_code, wrong.status_code, got.status_code] == [400, 403, 405]
    assert (await journal(nats_server), voice.requests) == ([], [])


@pytest.mark.parametrize("path", ["other?turn=1", "greeting?turn=0", "greeting?turn=x", "apology"])
async def test_voicemail_that_does_not_exist(edge: Edge, path: str) -> None:
    """The public address gives three texts and nothing else."""
    assert (await edge.http.get(f"/voice/voicemail/{path}")).status_code == 400
