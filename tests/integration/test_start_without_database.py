"""Messaging that starts before its database is there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc
from switchboard.messaging.v1 import messaging_service_pb2 as messaging_pb
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from services.common.grpc_client import open_channel
from services.messaging.__main__ import serve
from services.messaging.settings import MessagingSettings
from services.messaging.store.migrate import upgrade
from tests.support.databases import PostgresServer
from tests.support.forwarder import forwarding
from tests.support.grpc_api import TOKEN
from tests.support.nats import NatsServer
from tests.support.ports import free_port

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Messaging:
    """The service in this process, over its socket."""

    channel: grpc.aio.Channel

    async def database(self, status: "pb.Status.ValueType") -> pb.Component:
        """What it tells of its database, once that is so."""
        stub: HealthServiceAsyncStub = rpc.HealthServiceStub(self.channel)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await stub.GetHealth(pb.GetHealthRequest(), timeout=60)
                    found = {one.name: one for one in answer.components}["database"]
                    if found.status == status:
                        return found
                await asyncio.sleep(0.05)

    async def serves(self) -> bool:
        """What the standard health service says."""
        check = health_pb2_grpc.HealthStub(self.channel).Check  # type: ignore[attr-defined]  # None of its stubs has types.
        answer = await check(health_pb2.HealthCheckRequest(), timeout=60)
        return bool(answer.status == SERVING)

    async def code_of_a_call(self) -> grpc.StatusCode:
        """How a question about a message that doesn't exist ends."""
        stub: MessagingServiceAsyncStub = MessagingServiceStub(self.channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetMessage(messaging_pb.GetMessageRequest(id="none"), timeout=60)
        return raised.value.code()


@contextlib.asynccontextmanager
async def messaging(database_url: str, nats_url: str) -> AsyncIterator[Messaging]:
    address = f"127.0.0.1:{free_port()}"
    settings = MessagingSettings.load(
        {
            "PUBLIC_HOST": "https://switchboard.example.com",
            "DATABASE_URL": database_url,
            "NATS_URL": nats_url,
            "GRPC_TOKEN": TOKEN,
            "MESSAGING_GRPC_BIND": address,
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "secret",
            "TWILIO_API_BASE_URL": "http://127.0.0.1:9",
            "TWILIO_WHATSAPP_NUMBER": "+14155238886",
            "LOST_WEBHOOK_INTERVAL_SECONDS": "3600",
        }
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    try:
        async with open_channel(address, TOKEN) as channel:
            yield Messaging(channel)
    finally:
        stop.set()
        await running


async def test_the_database_is_what_is_red(
    postgres: PostgresServer, nats_server: NatsServer
) -> None:
    """Messaging says that it waits for the database, refuses calls, and works once it is there."""
    async with forwarding(postgres.migrated_database()) as way:
        await way.stop()
        async with messaging(way.url, nats_server.url) as it:
            found = await it.database(pb.STATUS_DOWN)
            assert found.reason == "the database doesn't answer"
            assert not await it.serves()
            assert await it.code_of_a_call() is grpc.StatusCode.UNAVAILABLE
            await way.start()
            await it.database(pb.STATUS_OK)
            assert await it.serves()
            assert await it.code_of_a_call() is grpc.StatusCode.NOT_FOUND


async def test_a_database_that_isnt_migrated_is_left_alone(
    empty_database_url: str, nats_server: NatsServer
) -> None:
    """Nothing works with it until it is migrated, and health says how that is done."""
    async with messaging(empty_database_url, nats_server.url) as it:
        found = await it.database(pb.STATUS_DOWN)
        assert "run `python -m services.messaging.migrate`" in found.reason
        assert await it.code_of_a_call() is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(upgrade, empty_database_url)
        await it.database(pb.STATUS_OK)
        assert await it.code_of_a_call() is grpc.StatusCode.NOT_FOUND
