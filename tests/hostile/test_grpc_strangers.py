"""gRPC for who has no token: health and nothing else, and of that not too much."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from switchboard.health.v1 import health_service_pb2 as health
from switchboard.health.v1 import health_service_pb2_grpc as health_rpc
from switchboard.messaging.v1 import messaging_service_pb2 as messaging
from switchboard.messaging.v1 import messaging_service_pb2_grpc as messaging_rpc
from switchboard.voice.v1 import voice_service_pb2 as voice
from switchboard.voice.v1 import voice_service_pb2_grpc as voice_rpc

from services.common.grpc_server import GrpcServer
from services.messaging.grpc_api.health_servicer import HealthServicer
from tests.support.api import PretendMessaging
from tests.support.attacks import Attacks
from tests.support.voice import PretendVoice

TOKEN = "grpc-token"
GOOD = (("authorization", f"Bearer {TOKEN}"),)
SERVICES = {
    service.full_name: service
    for file in (messaging, voice, health)
    for service in file.DESCRIPTOR.services_by_name.values()
}
OPEN = {"grpc.health.v1.Health"}
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
WRONG: list[tuple[tuple[str, str], ...]] = [
    (),
    (("authorization", "Bearer wrong"),),
    (("authorization", TOKEN),),
    (("authorization", f"Bearer {TOKEN} {TOKEN}"),),
    (("authorization", "Bearer wrong"), ("authorization", f"Bearer {TOKEN}x")),
]


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, PretendMessaging, PretendVoice]]:
    """All services that messaging has."""
    pretend, telephone = PretendMessaging(), PretendVoice()

    def add(server: grpc.aio.Server) -> None:
        messaging_rpc.add_MessagingServiceServicer_to_server(pretend, server)
        voice_rpc.add_VoiceServiceServicer_to_server(telephone, server)
        health_rpc.add_HealthServiceServicer_to_server(HealthServicer(dict), server)

    server = GrpcServer(
        address="127.0.0.1:0", tokens=[TOKEN], service_names=SERVICES, add_services=add
    )
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}", pretend, telephone
    finally:
        await server.stop(0)


async def asked(requests: Iterable[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def code(call: Any) -> grpc.StatusCode:
    """How a call of any kind ends, or OK once it has said something."""
    try:
        if hasattr(call, "read"):
            if await call.read() is grpc.aio.EOF:
                return await call.code()  # type: ignore[no-any-return] # grpc's stubs say Any.
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_method_wants_a_token(
    served: tuple[str, PretendMessaging, PretendVoice], attacks: Attacks
) -> None:
    """Whatever service there is, health's own aside, does nothing for who has no good token."""
    address, pretend, telephone = served
    async with grpc.aio.insecure_channel(address) as channel:
        untyped: Any = channel
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
        question = [reflection_pb2.ServerReflectionRequest(list_services="")]
        call = reflection.ServerReflectionInfo(asked(question), metadata=GOOD)
        listed = (await call.read()).list_services_response.service
        call.cancel()
        # One that is added to messaging has to be added here.
        assert {one.name for one in listed} == {*SERVICES, *OPEN, REFLECTION}
        for wrong in WRONG:
            call = reflection.ServerReflectionInfo(asked(question), metadata=wrong)
            refused = await code(call) is not grpc.StatusCode.OK
            attacks.count("gRPC: every method, no token", through=not refused)
            for name, service in SERVICES.items():
                for method in service.methods:
                    opened: Any = (
                        channel.unary_stream if method.server_streaming else channel.unary_unary
                    )
                    ended = await code(opened(f"/{name}/{method.name}")(b"", metadata=wrong))
                    attacks.count(
                        "gRPC: every method, no token",
                        through=ended is not grpc.StatusCode.UNAUTHENTICATED,
                        evidence=(method.name, ended),
                    )
    assert pretend.requests == telephone.requests == []


async def test_strangers_watch_health_within_bounds(
    served: tuple[str, PretendMessaging, PretendVoice], attacks: Attacks
) -> None:
    """Few may watch without a token; beyond them health can be asked, and methods answer."""
    address, _, _ = served
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(health_pb2.HealthCheckRequest(service=f"x{n}")) for n in range(300)]
        codes = await asyncio.gather(*map(first, watching))
        codes.sort(key=lambda ended: ended is not grpc.StatusCode.OK)
        for number, ended in enumerate(codes):
            through = number >= 50 and ended is not grpc.StatusCode.RESOURCE_EXHAUSTED
            attacks.count("floods: watching health", through=through, evidence=ended)
        assert codes.count(grpc.StatusCode.OK) == 50
        assert await code(stub.Check(health_pb2.HealthCheckRequest())) is grpc.StatusCode.OK
        api: Any = messaging_rpc.MessagingServiceStub(channel)
        listing = api.ListMessages(messaging.ListMessagesRequest(), metadata=GOOD)
        assert await code(listing) is grpc.StatusCode.OK
        for call in watching:
            call.cancel()
        # Whoever leaves makes room.
        again = grpc.StatusCode.RESOURCE_EXHAUSTED
        async with asyncio.timeout(60):
            while again is not grpc.StatusCode.OK:
                again = await code(stub.Watch(health_pb2.HealthCheckRequest()))


async def first(call: Any) -> grpc.StatusCode:
    """OK for a watch that goes on."""
    try:
        found = await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK if found is not grpc.aio.EOF else await call.code()


async def test_calls_of_a_connection_have_a_measure(
    served: tuple[str, PretendMessaging, PretendVoice], attacks: Attacks
) -> None:
    """Calls that are begun without a request get no further than the connection; as HTTP/2
    announces it (RFC 9113, 6.5.2)."""
    host, _, port = served[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    async with asyncio.timeout(20):
        head = await reader.readexactly(9)
        settings = await reader.readexactly(int.from_bytes(head[:3]))
    writer.transport.abort()
    found = dict(struct.iter_unpack(">HI", settings))
    assert head[3] == 4
    attacks.count("gRPC: calls of a connection", through=found.get(3, 2**31) > 1000, evidence=found)
