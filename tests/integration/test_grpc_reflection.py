"""A client that was given nothing but the address and the token."""

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common.grpc_server import GrpcServer
from services.messaging.store.database import Database
from tests.support.grpc_api import TOKEN, have_written, served
from tests.support.receiving import phone


class StockClient:
    """Learns the API from the server and speaks it with dynamic messages, as grpcurl does."""

    def __init__(self, channel: Any, token: str = TOKEN) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()

    async def services(self) -> list[str]:
        """The names of all services."""
        answer = await self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        return [service.name for service in answer.list_services_response.service]

    async def learn(self, name: str) -> ServiceDescriptor:
        """A service with all that it needs."""
        await self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        return self._pool.FindServiceByName(name)

    async def call(self, method: MethodDescriptor, request: dict[str, Any]) -> Any:
        """One answer, as JSON."""
        call = self._channel.unary_unary(**self._method(method))
        return json_format.MessageToDict(
            await call(self._request(method, request), metadata=self._metadata, timeout=60)
        )

    async def stream(
        self, method: MethodDescriptor, request: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Answer by answer, as JSON."""
        call = self._channel.unary_stream(**self._method(method))
        responses = call(self._request(method, request), metadata=self._metadata, timeout=60)
        async for response in responses:
            yield json_format.MessageToDict(response)

    def _method(self, method: MethodDescriptor) -> dict[str, Any]:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        return {
            "method": f"/{method.containing_service.full_name}/{method.name}",
            "request_serializer": request.SerializeToString,
            "response_deserializer": response.FromString,
        }

    def _request(self, method: MethodDescriptor, values: dict[str, Any]) -> Any:
        return json_format.ParseDict(values, message_factory.GetMessageClass(method.input_type)())

    async def _learn(self, question: reflection_pb2.ServerReflectionRequest) -> None:
        answer = await self._ask(question)
        for encoded in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
            if file.name in self._known:
                continue
            self._known.add(file.name)
            for other in file.dependency:
                if other not in self._known:
                    await self._learn(
                        reflection_pb2.ServerReflectionRequest(file_by_filename=other)
                    )
            self._pool.Add(file)

    async def _ask(self, question: reflection_pb2.ServerReflectionRequest) -> Any:
        call = self._reflection.ServerReflectionInfo(
            iter([question]), metadata=self._metadata, timeout=60
        )
        answer = await call.read()
        call.cancel()
        return answer


@pytest.fixture
async def server(database: Database) -> AsyncIterator[GrpcServer]:
    async with served(database) as server:
        yield server


async def test_a_stock_client_speaks_the_api(server: GrpcServer, database: Database) -> None:
    """By reflection alone a client finds the API, sends a message, reads it and watches it."""
    await have_written(database, 1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        client = StockClient(channel)
        [name] = [one for one in await client.services() if one.startswith("switchboard.")]
        service = await client.learn(name)
        methods = {method.name: method for method in service.methods}

        watching = client.stream(methods["WatchMessages"], {})
        start = await anext(watching)
        assert list(start) == ["cursor"]
        sent = await client.call(
            methods["SendMessage"], {"to": phone(1), "body": "Hello", "requestId": "r-1"}
        )
        told = await anext(watching)
        assert told["event"]["kind"] == "MESSAGE_EVENT_KIND_QUEUED"
        assert told["message"] == sent["message"]
        await watching.aclose()  # type: ignore[attr-defined] # It is a generator.

        asked = {"id": sent["message"]["id"], "includeEvents": True}
        read = await client.call(methods["GetMessage"], asked)
        assert read["message"] == sent["message"]
        assert read["events"] == [told["event"]]
        conversations = await client.call(methods["ListConversations"], {})
        assert conversations["conversations"][0]["lastMessage"] == sent["message"]


async def test_reflection_needs_the_token(server: GrpcServer) -> None:
    """Streams are guarded like any other call."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        metadata = (("authorization", "Bearer wrong"),)
        # Without a request: one that is sent while the call is refused ends in another error.
        call = stub.ServerReflectionInfo(metadata=metadata, timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
