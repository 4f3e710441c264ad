"""Keeping the connection to the journal."""

import asyncio

import pytest
from nats.aio.client import Client

from services.common.journal.streams import keep_connected
from tests.support.nats import NatsServer
from tests.support.ports import free_port


# The client leaves its socket to the process's end when it is cut short.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_stop_is_heard_at_any_moment_of_connecting(nats_server: NatsServer) -> None:
    """Whenever it is cancelled, it ends: a service told to stop as it starts must not hang."""
    for url in (nats_server.url, f"nats://127.0.0.1:{free_port()}"):
        for steps in range(40):
            client = Client()
            keeping = asyncio.create_task(
                keep_connected(client, url, name="test", replicas=1, max_bytes=1 << 20, owner=True)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            await asyncio.sleep(steps * 0.0001)
            keeping.cancel()
            _, hanging = await asyncio.wait([keeping], timeout=10)
            assert not hanging, f"after {steps} steps"
            if client.is_connected:
                await client.close()
