"""One channel to several replicas of a service."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer

TOKEN = "test-token"


class Replica:
    """A server whose one method counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.server = GrpcServer(
            address="127.0.0.1:0",
            tokens=[TOKEN],
            service_names=["test.Counter"],
            add_services=self._add,
        )

    def _add(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {"Count": grpc.unary_unary_rpc_method_handler(self._count)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Counter", handlers),)
        )

    async def _count(self, _request: bytes, _context: object) -> bytes:
        self.calls += 1
        return b""


@asynccontextmanager
async def replicas() -> AsyncIterator[list[Replica]]:
    """Two that are serving."""
    async with AsyncExitStack() as closing:
        started = [Replica(), Replica()]
        for replica in started:
            await replica.server.start()
            closing.push_async_callback(replica.server.stop, 0)
        yield started


async def call(channel: grpc.aio.Channel) -> None:
    count: Any = channel.unary_unary("/test.Counter/Count")
    await count(b"", timeout=60, wait_for_ready=True)


async def test_calls_go_to_all_replicas_and_on_without_one() -> None:
    """Behind one name every replica gets its share; when one goes, the others answer."""
    async with replicas() as (first, second):
        ports = [replica.server.port for replica in (first, second)]
        address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        async with open_channel(address, TOKEN) as channel:
            while not (first.calls and second.calls):
                await call(channel)
            shares = first.calls, second.calls
            for _ in range(20):
                await call(channel)
            assert (first.calls - shares[0], second.calls - shares[1]) == (10, 10)
            await first.server.stop(1)
            for _ in range(5):
                await call(channel)
            assert second.calls == shares[1] + 15
