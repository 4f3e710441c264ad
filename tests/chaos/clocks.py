"""Clocks that are set wrong, and right again, while everything runs."""

from collections.abc import Awaitable, Callable

from tests.chaos.world import World

_MINUTES = (5, 20, 60, 240)


def clock_jump(direction: int, *, together: bool) -> Callable[[World], Awaitable[None]]:
    """A clock jumps, and some time later back.

    Args:
        direction: 1 for forward, -1 for back.
        together: That of the machine, which all services have; else that of one process.
    """

    async def strike(world: World) -> None:
        stack = world.stack
        names = [*stack.edges, *stack.messagings]
        wrong = names if together else [world.chance.choice(names)]
        ahead = direction * 60 * world.chance.choice(_MINUTES)
        for name in wrong:
            stack.set_clock(name, ahead)
        try:
            await world.hold(4, 20)
        finally:
            for name in wrong:
                stack.set_clock(name, 0)

    return strike
