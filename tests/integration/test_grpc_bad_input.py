"""Every string field of every call, given what should never be there."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.messaging.store.database import Database
from tests.support.grpc_api import TOKEN, details, have_written, served
from tests.support.receiving import phone, rows

SERVICE = pb.DESCRIPTOR.services_by_name["MessagingService"]
HOSTILE = {
    "sql": "'; DROP TABLE messages; --",
    "or": '" OR "1"="1',
    "percent": "%",
    "nul": "a\0b",
    "long": "x" * 1_000_000,
    "bidi": "\u202e\ufeff\u0000",
    "path": "../../../etc/passwd",
    "format": "{0.__class__}%s%n",
    "token": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
}
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
VALID: dict[str, Any] = {"to": phone(1), "contact_address": phone(1), "body": "Hello"}


def strings(message: Descriptor | None, *path: str) -> list[tuple[str, ...]]:
    """The string fields of a message and of the messages in it."""
    assert message is not None
    found = []
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            found.append((*path, field.name))
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated:
            found += strings(field.message_type, *path, field.name)
    return found


CASES = [(method.name, path) for method in SERVICE.methods for path in strings(method.input_type)]


@pytest.fixture
async def server(database: Database) -> AsyncIterator[GrpcServer]:
    await have_written(database, 1)
    async with served(database, max_message_bytes=4 * 1024 * 1024) as server:
        yield server


async def answer(channel: Any, method: str, request: Message) -> tuple[grpc.StatusCode, Any]:
    """How a call ends; a stream by its first response."""
    descriptor = SERVICE.methods_by_name[method]
    options = {
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": message_factory.GetMessageClass(descriptor.output_type).FromString,
    }
    path = f"/{SERVICE.full_name}/{method}"
    try:
        if descriptor.server_streaming:
            call = channel.unary_stream(path, **options)(request, timeout=60)
            await call.read()
            call.cancel()
        else:
            await channel.unary_unary(path, **options)(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code(), error
    return grpc.StatusCode.OK, None


async def test_no_string_does_harm(server: GrpcServer, database: Database) -> None:
    """Whatever stands in a field, the call succeeds or is refused with the reason."""
    assert len(CASES) > 15
    async with open_channel(f"127.0.0.1:{server.port}", TOKEN) as channel:
        for method, path in CASES:
            descriptor = SERVICE.methods_by_name[method].input_type
            for name, value in HOSTILE.items():
                request = message_factory.GetMessageClass(descriptor)()
                for known, valid in VALID.items():
                    field = descriptor.fields_by_name.get(known)
                    if field is not None and field.containing_oneof is None:
                        setattr(request, known, valid)
                inner: Any = request
                for part in path[:-1]:
                    inner = getattr(inner, part)
                setattr(inner, path[-1], value)
                code, error = await answer(channel, method, request)
                assert code in EXPECTED, (method, path, name, error)
                if code is grpc.StatusCode.INVALID_ARGUMENT:
                    assert details(error)["ErrorInfo"].metadata["field"], (method, path, name)
                    assert len(error.details()) < 1000
    assert len(await rows(database, "contacts")) == 1
