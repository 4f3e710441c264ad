"""The gRPC API over a real socket, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from switchboard.messaging.v1 import message_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.grpc_server import GrpcServer
from services.messaging.domain.message import MessageStatus
from services.messaging.grpc_api.servicer import SERVICE_NAME
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from tests.support.grpc_api import called, details, have_written, served
from tests.support.receiving import inbound, phone, receive, report
from tests.support.sandbox import OUR_NUMBER
from tests.support.sending import now, open_database

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )


@pytest.fixture
async def server(database: Database) -> AsyncIterator[GrpcServer]:
    async with served(database) as server:
        yield server


@pytest.fixture
async def api(server: GrpcServer, database: Database) -> AsyncIterator[Api]:
    await have_written(database, 1)
    async with called(server) as api:
        yield api


async def sent(api: Api) -> list[message_pb2.Message]:
    """What was stored for sending, newest first."""
    request = pb.ListMessagesRequest(direction=message_pb2.DIRECTION_OUTBOUND)
    return list((await api.ListMessages(request)).messages)


async def test_a_message_sent_can_be_read_back(api: Api) -> None:
    """SendMessage stores the message and returns it; GetMessage and ListMessages show the same."""
    sent = (await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Hello"))).message
    assert sent.status == message_pb2.MESSAGE_STATUS_QUEUED
    assert sent.direction == message_pb2.DIRECTION_OUTBOUND
    assert (sent.author, sent.body) == ("api", "Hello")
    assert (sent.contact_address, sent.own_address) == (f"whatsapp:{phone(1)}", OUR_NUMBER)
    assert not sent.HasField("delivered_at")
    assert (await api.GetMessage(pb.GetMessageRequest(id=sent.id))).message == sent
    [newest] = (await api.ListMessages(pb.ListMessagesRequest(page_size=1))).messages
    assert newest == sent


async def test_times_say_whose_clock_they_are(api: Api, database: Database) -> None:
    """Delivered and read come with their times, and with the word that we measured them."""
    sent = (await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Hello"))).message
    reports = [
        report("SM1", status, seconds=number, message_id=sent.id)
        for number, status in enumerate((MessageStatus.DELIVERED, MessageStatus.READ), 1)
    ]
    await receive(SqlIngestStore(database), clock=now)([], reports)
    message = (await api.GetMessage(pb.GetMessageRequest(id=sent.id))).message
    assert message.status == message_pb2.MESSAGE_STATUS_READ
    assert message.provider_message_id == "SM1"
    assert message.read_at.time.seconds == message.delivered_at.time.seconds + 1
    assert message.read_at.source == message_pb2.TIME_SOURCE_RECEIVED
    assert not message.HasField("failed_at")


@pytest.mark.parametrize("first", [MessageStatus.FAILED, MessageStatus.READ])
async def test_what_was_read_has_not_failed(
    api: Api, database: Database, first: MessageStatus
) -> None:
    """Who looks at `failed_at` doesn't send again what arrived, in whatever order it was told."""
    sent = (await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Hello"))).message
    told = sorted((MessageStatus.FAILED, MessageStatus.READ), key=lambda one: one is not first)
    store = receive(SqlIngestStore(database), clock=now)
    request = pb.GetMessageRequest(id=sent.id, include_events=True)
    for number, status in enumerate(told, 1):
        await store([], [report("SM1", status, seconds=number, message_id=sent.id)])
        found = await api.GetMessage(request)
        failed = found.message.status == message_pb2.MESSAGE_STATUS_FAILED
        assert failed == (status is first is MessageStatus.FAILED)
        assert found.message.HasField("failed_at") == failed
    assert message_pb2.MESSAGE_STATUS_FAILED in {event.status for event in found.events}


async def test_the_same_request_id_sends_once(api: Api) -> None:
    """A retried request returns the first message; another request under its id is refused."""
    request = pb.SendMessageRequest(to=phone(1), body="Hello", request_id="r-1")
    first = await api.SendMessage(request)
    assert (await api.SendMessage(request)).message.id == first.message.id
    request.body = "Something else"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.SendMessage(request)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert details(raised.value)["ErrorInfo"].reason == "IDEMPOTENCY_CONFLICT"
    assert len(await sent(api)) == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SendMessageRequest(to="", body="Hello"), "to"),
        (pb.SendMessageRequest(to="050-123", body="Hello"), "to"),
        (pb.SendMessageRequest(to="+972501234567'; DROP TABLE messages", body="x"), "to"),
        (pb.SendMessageRequest(to=phone(1), body=""), "body"),
        (pb.SendMessageRequest(to=phone(1), body="x" * 1601), "body"),
        (pb.SendMessageRequest(to=phone(1), body="a\0b"), "body"),
        (pb.SendMessageRequest(to=phone(1), body="x", request_id="r" * 256), "request_id"),
        (pb.SendMessageRequest(to=phone(1), body="x", request_id="\0"), "request_id"),
    ],
)
async def test_bad_input_names_its_field(
    api: Api, request_: pb.SendMessageRequest, field: str
) -> None:
    """Bad input is INVALID_ARGUMENT with the field's name, and nothing is stored."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.SendMessage(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = details(raised.value)["BadRequest"].field_violations
    assert violation.field == field
    assert details(raised.value)["ErrorInfo"].metadata["field"] == field
    assert not await sent(api)


@pytest.mark.parametrize("id_", ["0" * 32, "' OR 1=1 --", "\0", "x" * 100_000])
async def test_an_unknown_id_is_not_found(api: Api, id_: str) -> None:
    """Whatever is asked for, an id that isn't ours is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.GetMessage(pb.GetMessageRequest(id=id_))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_opted_out_contact_is_refused(api: Api, database: Database) -> None:
    """A contact who wrote STOP gets nothing, and the caller learns which rule forbids it."""
    await receive(SqlIngestStore(database), clock=now)([inbound("SM1", contact=1, body="stop")], [])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Hello"))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(raised.value)["ErrorInfo"].metadata["rule"] == "opted_out"


@pytest.mark.parametrize("token", ["wrong", "", "test-toke", "test-token "])
async def test_without_the_token_nothing_is_done(server: GrpcServer, token: str) -> None:
    """A call without a valid token is UNAUTHENTICATED, whatever it asks."""
    async with called(server, token) as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.ListMessages(pb.ListMessagesRequest())
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_can_be_rotated(server: GrpcServer) -> None:
    """While several tokens are configured each of them is good."""
    async with called(server, "old-token") as api:
        await api.ListMessages(pb.ListMessagesRequest())


async def test_health_needs_no_token_and_tells_the_truth(server: GrpcServer) -> None:
    """The standard health service answers anyone, for the server and for the service."""
    health = health_pb2.HealthCheckResponse
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE_NAME):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await stub.Check(request, timeout=60)).status == health.NOT_SERVING
            await server.set_serving(True)
            assert (await stub.Check(request, timeout=60)).status == health.SERVING
            await server.set_serving(False)


async def test_an_oversized_request_is_refused(api: Api) -> None:
    """A message beyond the limit is refused before it is parsed."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="x" * 2_000_000))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_internal_errors_do_not_leak(database_url: str) -> None:
    """A database that is gone is UNAVAILABLE, and the text names neither tables nor files."""
    async with (
        open_database(f"{database_url}/gone") as database,
        served(database) as server,
        called(server) as api,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.ListMessages(pb.ListMessagesRequest())
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "gone" not in (raised.value.details() or "")


async def test_a_slow_call_ends_in_time(database: Database) -> None:
    """A call that takes too long is DEADLINE_EXCEEDED at the server, whatever the client waits."""
    async with served(database, max_seconds=0.0) as server, called(server) as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.ListMessages(pb.ListMessagesRequest())
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_too_many_calls_are_refused(database: Database) -> None:
    """Beyond the limit of calls at once the caller is told to try again."""
    async with served(database, max_concurrent=0) as server, called(server) as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.ListMessages(pb.ListMessagesRequest())
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(raised.value)["ErrorInfo"].reason == "OVERLOADED"
