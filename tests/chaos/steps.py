"""Kills between two steps: the process dies by itself when it gets there, see `process`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from tests.chaos.stack import ChaosStack
from tests.chaos.twilio import misbehaving
from tests.chaos.world import World

_REACHED_SECONDS = 60

Surroundings = Callable[[World], AbstractAsyncContextManager[object]]


def killed_at(
    steps: Sequence[str],
    service: Callable[[ChaosStack], Sequence[str]],
    surroundings: Surroundings = nullcontext,
) -> Callable[[World], Awaitable[None]]:
    """The first process of a service that comes to one of these steps dies, and starts again."""

    async def strike(world: World) -> None:
        async with surroundings(world):
            step = world.chance.choice(steps)
            died = await _death(world.stack, step, service(world.stack))
        await asyncio.sleep(world.chance.uniform(0, 1))
        world.stack.kill(died)
        world.stack.start(died)

    return strike


async def _death(stack: ChaosStack, step: str, names: Sequence[str]) -> str:
    armed = stack.steps / step
    await asyncio.to_thread(armed.touch)
    try:
        async with asyncio.timeout(_REACHED_SECONDS):
            while True:
                for name in names:
                    if stack.process(name).poll() is not None:
                        return name
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise RuntimeError(f"nobody came to the step {step}") from None
    finally:
        await asyncio.to_thread(armed.unlink, missing_ok=True)


@asynccontextmanager
async def broker_away(world: World) -> AsyncIterator[None]:
    """Without NATS, so that events are spilled."""
    world.stack.kill("NATS")
    try:
        yield
    finally:
        world.stack.start("NATS")


@asynccontextmanager
async def broker_back(world: World) -> AsyncIterator[None]:
    """NATS has just come back, and events wait in the spill."""
    world.stack.kill("NATS")
    await world.hold(1.5, 3)
    world.stack.start("NATS")
    yield


def twilio_hangs(world: World) -> AbstractAsyncContextManager[object]:
    """Twilio takes messages and doesn't say so."""
    return misbehaving(world, hang={"accept": True})


def twilio_is_mute(world: World) -> AbstractAsyncContextManager[object]:
    """Nor does it report on them: only its list shows them."""
    return misbehaving(world, hang={"accept": True}, no_callbacks={})
