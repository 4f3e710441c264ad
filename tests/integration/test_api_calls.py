"""Calls over the REST API, and a pretend messaging behind it."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.voice.v1 import call_pb2

from services.common.errors import InvalidInputError
from tests.support.api import PretendMessaging, running_api, served
from tests.support.voice import AUDIO_ID, CALL_SID, CALLED, CALLER, PretendVoice, call

CALLS = "/api/calls"
SHOWN = {
    "id": CALL_SID,
    "provider": "twilio",
    "status": "completed",
    "outcome": "answered",
    "caller": CALLER,
    "called": CALLED,
    "language": "en-US",
    "started_at": "2026-05-01T09:30:00Z",
    "answered_at": None,
    "ended_at": None,
    "seconds": 41.0,
}


async def test_a_list_is_filtered_and_read_page_by_page() -> None:
    """Every parameter reaches messaging, and its cursor the client."""
    voice = PretendVoice()
    async with served(PretendMessaging(), voice) as address, running_api(address) as api:
        page = await api.http.get(
            CALLS,
            params={
                "limit": 3,
                "cursor": "here",
                "number": "050-123 4567",
                "outcome": "voicemail",
                "since": "2026-05-01T09:30:00+03:00",
                "until": "2026-05-02T00:00:00Z",
            },
        )
        assert page.json() == {"calls": [SHOWN], "next_cursor": "next"}
        await api.http.get(CALLS)
    asked, plain = voice.requests
    assert (asked.page_size, asked.page_token, asked.number) == (3, "here", "050-123 4567")
    assert asked.outcome == call_pb2.CALL_OUTCOME_VOICEMAIL
    assert asked.since.ToJsonString() == "2026-05-01T06:30:00Z"
    assert asked.until.ToJsonString() == "2026-05-02T00:00:00Z"
    assert (plain.page_size, plain.outcome, plain.HasField("since")) == (50, 0, False)


async def test_a_call_with_what_was_said() -> None:
    """Transcript, answer with its audio, and timings; what is unknown is null."""
    voice = PretendVoice()
    voice.known[CALL_SID] = call(
        turns=[
            call_pb2.Turn(
                number=1,
                state=call_pb2.TURN_STATE_DONE,
                transcript="Is it still free?",
                answer=[
                    call_pb2.AnswerPart(text="Yes.", audio_id=AUDIO_ID, played=True),
                    call_pb2.AnswerPart(text="Come and see it."),
                ],
                recording_duration=Duration(seconds=3, nanos=250_000_000),
                heard_at=Timestamp(seconds=1_777_627_812),
                timings=call_pb2.TurnTimings(gap=Duration(nanos=900_000_000)),
            )
        ]
    )
    async with served(PretendMessaging(), voice) as address, running_api(address) as api:
        found = (await api.http.get(f"{CALLS}/{CALL_SID}")).json()
    [turn] = found.pop("turns")
    assert found == SHOWN
    assert turn == {
        "number": 1,
        "state": "done",
        "voicemail": False,
        "transcript": "Is it still free?",
        "answer": [
            {"text": "Yes.", "audio_url": f"/audio/{AUDIO_ID}.mp3", "played": True},
            {"text": "Come and see it.", "audio_url": None, "played": False},
        ],
        "digits": None,
        "recording_id": None,
        "recording_seconds": 3.25,
        "heard_at": "2026-05-01T09:30:12Z",
        "timings": {
            "fetch": None,
            "transcribe": None,
            "first_sentence": None,
            "first_audio": None,
            "gap": 0.9,
        },
        "problem": None,
    }


async def test_a_call_that_nobody_knows() -> None:
    """404, in the API's own words."""
    async with served(PretendMessaging()) as address, running_api(address) as api:
        response = await api.http.get(f"{CALLS}/CA404")
    assert response.status_code == 404
    assert response.json()["detail"] == "sid: there is no call with this id"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("outcome=great", "outcome"),
        ("since=yesterday", "since"),
        ("number=", "number"),
        ("contact=1", "contact"),
    ],
)
async def test_a_bad_query_is_400(query: str, field: str) -> None:
    """It names the field, and messaging isn't asked."""
    voice = PretendVoice()
    async with served(PretendMessaging(), voice) as address, running_api(address) as api:
        response = await api.http.get(f"{CALLS}?{query}")
    assert response.status_code == 400
    assert [one["field"] for one in response.json()["errors"]] == [field]
    assert voice.requests == []


async def test_messagings_fields_have_the_apis_names() -> None:
    """A cursor that messaging refuses is called cursor."""
    voice = PretendVoice()
    voice.error = InvalidInputError("page_token", "is not one of ours")
    async with served(PretendMessaging(), voice) as address, running_api(address) as api:
        response = await api.http.get(CALLS, params={"cursor": "nonsense"})
    assert response.json()["errors"] == [{"field": "cursor", "problem": "is not one of ours"}]


async def test_calls_need_a_key() -> None:
    """As everything in the API."""
    async with running_api("127.0.0.1:9") as api:
        for path in (CALLS, f"{CALLS}/{CALL_SID}"):
            response = await api.http.get(path, headers={"x-api-key": "wrong-key-altogether"})
            assert response.status_code == 401
