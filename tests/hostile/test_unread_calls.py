"""Who asks over gRPC and takes none of the answers."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common import grpc_server
from services.common.grpc_server import GrpcServer
from services.messaging.store.database import Database
from tests.support.attacks import Attacks
from tests.support.grpc_api import TOKEN, called, served
from tests.support.raw_grpc import unreading
from tests.support.sending import open_database, until

LIST = "/switchboard.messaging.v1.MessagingService/ListMessages"
MOST = 5

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


async def is_room(server: GrpcServer) -> bool:
    """Whether somebody else's call is answered."""
    try:
        async with called(server) as api:
            await api.ListMessages(pb.ListMessagesRequest())
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
    return True


async def test_answers_that_nobody_takes_are_bounded(database: Database, attacks: Attacks) -> None:
    """A call counts until its answer was taken, or its caller has left."""
    async with served(database, max_concurrent=MOST) as server:

        async def free() -> bool:
            return await is_room(server)

        async with unreading(server.port, TOKEN) as caller:
            for _ in range(3 * MOST):
                await caller.call(LIST, pb.ListMessagesRequest())
            # By then all handlers have returned.
            await asyncio.sleep(1)
            attacks.count("floods: answers that nobody takes", through=await free())
        await until(free)


async def test_answers_that_nobody_takes_are_let_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who never takes an answer and never leaves is cut off."""
    monkeypatch.setattr(grpc_server, "_CONNECTION_MILLISECONDS", 500)
    monkeypatch.setattr(grpc_server, "_LAST_CALLS_MILLISECONDS", 500)
    async with (
        served(database, max_concurrent=MOST) as server,
        unreading(server.port, TOKEN) as caller,
    ):
        for _ in range(MOST):
            await caller.call(LIST, pb.ListMessagesRequest())

        async def free() -> bool:
            return await is_room(server)

        async def full() -> bool:
            return not await is_room(server)

        await until(full)
        await until(free)
