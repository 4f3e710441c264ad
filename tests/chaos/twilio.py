"""A Twilio that misbehaves."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.chaos.world import World


@asynccontextmanager
async def misbehaving(world: World, **faults: Any) -> AsyncIterator[None]:
    """With these switches of the sandbox, as `sandbox.faults.Faults` has them."""
    url = f"{world.stack.sandbox}/sandbox/faults"
    async with aiohttp.ClientSession() as client:
        async with client.put(url, json=faults) as answer:
            answer.raise_for_status()
        try:
            yield
        finally:
            async with client.delete(url) as answer:
                answer.raise_for_status()


def twilio(**faults: Any) -> Callable[[World], Awaitable[None]]:
    """It misbehaves for some seconds."""

    async def strike(world: World) -> None:
        async with misbehaving(world, **faults):
            await world.hold(4, 10)

    return strike
