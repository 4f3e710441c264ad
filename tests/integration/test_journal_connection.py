"""The connection to the journal: a stop is heard at any moment, and leaves nothing open."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator

import nats.errors
import pytest

from services.common.journal.client import NatsClient
from services.common.journal.streams import connect, keep_connected
from tests.support.edge import until
from tests.support.journal import closed
from tests.support.nats import NatsServer
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """A connection that nobody closed is found by the collector, in the test that left it."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
    gc.collect()


async def test_a_stop_is_heard_at_any_moment_of_connecting(nats_server: NatsServer) -> None:
    """Whenever it is cancelled, it ends: a service told to stop as it starts must not hang."""
    for url in (nats_server.url, f"nats://127.0.0.1:{free_port()}"):
        for steps in range(40):
            client = NatsClient()
            keeping = asyncio.create_task(
                keep_connected(client, url, name="test", replicas=1, max_bytes=1 << 20, owner=True)
            )
            await _turns(steps)
            keeping.cancel()
            _, hanging = await asyncio.wait([keeping], timeout=60)
            assert not hanging, f"after {steps} steps"
            await client.close()


@pytest.mark.parametrize("unsent", [False, True])
async def test_a_client_may_be_closed_at_any_moment_of_connecting_again(
    nats_server: NatsServer, unsent: bool
) -> None:
    """It isn't connected afterwards, and what it could not send any more is no error."""
    for steps in range(30):
        client = await connect(nats_server.url, name="test", on_closed=closed)
        for server in client._server_pool:
            # It tries again at once.
            server.last_attempt = None
        await client.force_reconnect()
        await _turns(steps)
        if unsent:
            await client.publish("test", b"late")
        await client.close()
        assert client.is_closed, f"after {steps} steps"


async def test_an_attempt_that_fails_leaves_no_connection() -> None:
    """A server that accepts connections and then doesn't do its part costs none of them."""
    arrived: list[asyncio.StreamWriter] = []
    ended = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        arrived.append(writer)
        sound = len(arrived) == 1
        writer.write(
            b"INFO %b\r\n" % json.dumps({"max_payload": 1}).encode() if sound else b"?\r\n"
        )
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()
        ended += 1

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        client = NatsClient()
        await connect(f"nats://127.0.0.1:{port}", name="test", on_closed=closed, client=client)
        client.options["reconnect_time_wait"] = 0.01
        arrived[0].close()
        await until(lambda: len(arrived) > 4)
        # All but the one that is tried at this moment.
        await until(lambda: ended >= len(arrived) - 1)
        await client.close()
        for writer in arrived:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_a_stop_is_heard_together_with_an_answer(nats_server: NatsServer) -> None:
    """Whoever asks again and again ends when cancelled, also as an answer comes."""
    client = await connect(nats_server.url, name="test", on_closed=closed)

    async def ask() -> None:
        while True:
            await client.jetstream().account_info()

    asking = asyncio.create_task(ask())
    await until(lambda: bool(client._resp_map))
    [answer] = client._resp_map.values()
    answer.add_done_callback(lambda _: asking.cancel())
    _, hanging = await asyncio.wait([asking], timeout=10)
    asking.cancel()
    await client.close()
    assert not hanging


async def test_an_answer_that_nobody_waits_for_any_more_does_no_harm(
    nats_server: NatsServer,
) -> None:
    """Whoever gave up asking a frozen broker hears it again once it goes on."""
    client = await connect(nats_server.url, name="test", on_closed=closed)
    nats_server.pause()
    with pytest.raises(nats.errors.TimeoutError):
        await client.flush(timeout=1)
    nats_server.resume()
    # It was deaf for longer than this.
    await client.jetstream(timeout=10).account_info()
    await client.close()


async def _turns(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    await asyncio.sleep(steps * 0.0001)
