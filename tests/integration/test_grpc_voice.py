"""`VoiceService` over a real socket, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from switchboard.voice.v1 import call_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb
from switchboard.voice.v1 import voice_service_pb2_grpc as rpc

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.messaging.consumers.call_signal import NatsCallSignal
from services.messaging.domain.call import (
    AnswerPart,
    CallAction,
    CallOutcome,
    CallStatus,
    TurnState,
    TurnTimings,
)
from services.messaging.grpc_api import voice_servicer
from services.messaging.grpc_api.voice_servicer import SERVICE_NAME, VoiceServicer
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from services.messaging.usecases.calls.metrics import CallMetrics
from services.messaging.usecases.calls.next_step import NextStep
from services.messaging.usecases.calls.prompts import Prompts
from services.messaging.usecases.calls.rules import CallRules
from tests.support.calls import CALLED, CALLER, at, recording, report, seen
from tests.support.grpc_api import ADDRESSES, TOKEN, details
from tests.support.sending import now

if TYPE_CHECKING:
    from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceAsyncStub as Api

from nats.aio.client import Client

AUDIO = "a" * 64


async def _unspoken(text: str, language: str, /) -> str | None:
    return None


@pytest.fixture
def signal() -> NatsCallSignal:
    # Unconnected: within one process no broker is needed.
    return NatsCallSignal(Client())


@pytest.fixture
def store(database: Database, signal: NatsCallSignal) -> SqlCallStore:
    return SqlCallStore(database, now, on_change=signal.announce)


@pytest.fixture
async def server(store: SqlCallStore, signal: NatsCallSignal) -> AsyncIterator[GrpcServer]:
    prompts = Prompts(_unspoken, language="en-US", own_texts={}, retention=timedelta(days=1))
    next_step = NextStep(
        store,
        signal,
        prompts,
        CallRules(language="en-US"),
        clock=now,
        metrics=CallMetrics(CollectorRegistry()),
        # Waiting is ended by the signal.
        poll_seconds=60,
    )
    servicer = VoiceServicer(next_step, store, addresses=ADDRESSES, providers=["twilio"], clock=now)
    server = GrpcServer(
        address="127.0.0.1:0",
        tokens=[TOKEN],
        service_names=[SERVICE_NAME],
        add_services=lambda server: rpc.add_VoiceServiceServicer_to_server(servicer, server),
    )
    await server.start()
    await server.set_serving(True)
    yield server
    await server.stop(1)


@asynccontextmanager
async def called(server: GrpcServer, token: str = TOKEN) -> "AsyncIterator[Api]":
    async with open_channel(f"127.0.0.1:{server.port}", token) as channel:
        yield rpc.VoiceServiceStub(channel)


def asked(**fields: Any) -> pb.NextStepRequest:
    values = {"provider": "twilio", "call_id": "CA1", "caller": CALLER, "called": CALLED, **fields}
    return pb.NextStepRequest(**values)


def kinds(response: pb.NextStepResponse) -> list[str | None]:
    return [step.WhichOneof("step") for step in response.script.steps]


def stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at(seconds))
    return stamp


def span(**length: float) -> Duration:
    span = Duration()
    span.FromTimedelta(timedelta(**length))
    return span


async def test_a_new_call_is_greeted(server: GrpcServer) -> None:
    """A caller hears the greeting, is recorded as turn 1, and is asked again when silent."""
    async with called(server) as api:
        response = await api.NextStep(asked(incoming=pb.Incoming()), timeout=60)
    assert kinds(response) == ["say", "record", "redirect"]
    _, record, redirect = response.script.steps
    assert record.record.turn == 1
    assert (redirect.redirect.turn, redirect.redirect.silence) == (1, True)


async def test_an_answer_is_waited_for(server: GrpcServer, store: SqlCallStore) -> None:
    """A held request is answered as soon as the first sentence is there."""
    await store.recorded(recording())
    turn = await store.claim_turn("CA1", 1, lease=timedelta(seconds=30))
    assert turn is not None
    await store.transcribed(turn, "Hello?", "en-US")
    async with called(server) as api:
        request = asked(recorded=pb.Recorded(turn=1), hold_ms=20_000)
        held = asyncio.ensure_future(api.NextStep(request, timeout=21))
        # Whatever comes first, the request or the sentence, the answer is the same.
        await store.add_part(turn, AnswerPart("Good day.", AUDIO))
        response = await held
    assert kinds(response) == ["play", "redirect"]
    assert response.script.steps[0].play.audio_id == AUDIO
    assert response.script.steps[1].redirect.part == 1


async def test_a_wait_ends_before_the_deadline(
    server: GrpcServer, store: SqlCallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a caller of the API would hold, something to say comes within its deadline."""
    # What is spared for a network and a machine at work, not for one that runs tests side by side.
    monkeypatch.setattr(voice_servicer, "_SPARE", timedelta(seconds=9))
    await store.recorded(recording())
    async with called(server) as api:
        request = asked(recorded=pb.Recorded(turn=1), hold_ms=60_000)
        response = await api.NextStep(request, timeout=10)
    assert response.script.steps


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda one: one.ClearField("provider"), "provider"),
        (lambda one: one.ClearField("call_id"), "call_id"),
        (lambda one: setattr(one, "call_id", "x" * 200), "call_id"),
        (lambda one: setattr(one, "call_id", "a\0b"), "call_id"),
        (lambda one: setattr(one, "caller", "x" * 300), "caller"),
        (lambda one: setattr(one, "hold_ms", -1), "hold_ms"),
        (lambda one: one.ClearField("recorded"), "event"),
        (lambda one: setattr(one.recorded, "turn", 0), "recorded.turn"),
        (lambda one: setattr(one.recorded, "turn", 2**31 - 1), "recorded.turn"),
        (lambda one: setattr(one.played, "part", -1), "played.turn"),
        (lambda one: one.played.MergeFrom(pb.Played(turn=1, part=2**31 - 1)), "played.part"),
        (lambda one: setattr(one.silent, "turn", -5), "silent.turn"),
        (lambda one: setattr(one.dialed, "answered", True), "dialed.turn"),
    ],
)
async def test_a_bad_question(
    server: GrpcServer, change: Callable[[pb.NextStepRequest], object], field: str
) -> None:
    """A question that makes no sense is refused, by the field's name."""
    request = asked(recorded=pb.Recorded(turn=1))
    change(request)
    async with called(server) as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.NextStep(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)["ErrorInfo"].metadata["field"] == field


async def test_a_call_over_the_wire(server: GrpcServer, store: SqlCallStore) -> None:
    """A call comes with its turns, answers, timings and all that is known of it."""
    await store.recorded(recording(seconds=2, duration=3))
    turn = await store.claim_turn("CA1", 1, lease=timedelta(seconds=30))
    assert turn is not None
    await store.transcribed(turn, "Hello?", "he-IL")
    await store.add_part(turn, AnswerPart("Good day.", AUDIO))
    await store.add_part(turn, AnswerPart("Bye.", None))
    timings = TurnTimings(fetch=timedelta(milliseconds=5), gap=timedelta(milliseconds=900))
    await store.finish_turn(turn, TurnState.DONE, action=CallAction.HANG_UP, timings=timings)
    await store.played("CA1", 1, 1)
    await store.set_outcome("CA1", CallOutcome.ANSWERED)
    await store.report(report(CallStatus.COMPLETED, seconds=9, duration=8))
    async with called(server) as api:
        call = (await api.GetCall(pb.GetCallRequest(id="CA1"), timeout=60)).call
    assert call == call_pb2.Call(
        id="CA1",
        provider="twilio",
        status=call_pb2.CALL_STATUS_COMPLETED,
        outcome=call_pb2.CALL_OUTCOME_ANSWERED,
        caller=CALLER,
        called=CALLED,
        language="he-IL",
        started_at=stamp(2),
        answered_at=stamp(2),
        ended_at=stamp(9),
        duration=span(seconds=8),
        turns=[
            call_pb2.Turn(
                number=1,
                state=call_pb2.TURN_STATE_DONE,
                transcript="Hello?",
                answer=[
                    call_pb2.AnswerPart(text="Good day.", audio_id=AUDIO, played=True),
                    call_pb2.AnswerPart(text="Bye."),
                ],
                recording_id="RE-CA1-1",
                recording_duration=span(seconds=3),
                heard_at=stamp(2),
                timings=call_pb2.TurnTimings(
                    fetch=span(milliseconds=5), gap=span(milliseconds=900)
                ),
            )
        ],
    )


async def test_an_unknown_call(server: GrpcServer) -> None:
    """A call that isn't there is not found; an empty id is refused."""
    async with called(server) as api:
        for call_id in ("CA404", "a\0b"):
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await api.GetCall(pb.GetCallRequest(id=call_id), timeout=60)
            assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.GetCall(pb.GetCallRequest(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_list_of_calls(server: GrpcServer, store: SqlCallStore) -> None:
    """Pages follow one another without a gap, and without turns; filters narrow them."""
    for number in range(5):
        await store.seen(seen(f"CA{number}", seconds=number, caller=f"+97250123450{number % 2}"))
    await store.recorded(recording(1, "CA3", seconds=30))
    await store.set_outcome("CA3", CallOutcome.VOICEMAIL)

    async with called(server) as api:

        async def ids(**filters: Any) -> list[str]:
            found: list[str] = []
            token = ""
            while True:
                page = await api.ListCalls(
                    pb.ListCallsRequest(page_size=2, page_token=token, **filters), timeout=5
                )
                assert not any(call.turns for call in page.calls)
                found += [call.id for call in page.calls]
                token = page.next_page_token
                if not token:
                    return found

        assert await ids() == ["CA4", "CA3", "CA2", "CA1", "CA0"]
        assert await ids(number="050-123-4501") == ["CA3", "CA1"]
        assert await ids(outcome=call_pb2.CALL_OUTCOME_VOICEMAIL) == ["CA3"]
        assert await ids(since=stamp(1), until=stamp(3)) == ["CA2", "CA1"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListCallsRequest(number="no number"), "number"),
        (pb.ListCallsRequest(number="whatsapp:US.13491208655302"), "number"),
        (pb.ListCallsRequest(page_token="x"), "page_token"),
        (pb.ListCallsRequest(page_size=-1), "page_size"),
        (pb.ListCallsRequest(since=stamp(2), until=stamp(1)), "until"),
    ],
)
async def test_a_bad_filter(server: GrpcServer, request_: pb.ListCallsRequest, field: str) -> None:
    """A filter that makes no sense is refused, by the field's name."""
    async with called(server) as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.ListCalls(request_, timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)["ErrorInfo"].metadata["field"] == field


async def test_a_token_belongs_to_its_list(server: GrpcServer, store: SqlCallStore) -> None:
    """A page token of one list is refused for another."""
    for number in range(2):
        await store.seen(seen(f"CA{number}", seconds=number))
    async with called(server) as api:
        page = await api.ListCalls(pb.ListCallsRequest(page_size=1), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.ListCalls(
                pb.ListCallsRequest(page_token=page.next_page_token, number=CALLER), timeout=5
            )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_and_token(server: GrpcServer) -> None:
    """The service has a health of its own, and wants the token."""
    async with open_channel(f"127.0.0.1:{server.port}", TOKEN) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with called(server, "wrong") as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.ListCalls(pb.ListCallsRequest(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
