"""Work that is not broken off in the middle when it is cancelled."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def _nothing() -> None:
    pass


async def drained(work: Coroutine[Any, Any, T], stop: Callable[[], None] = _nothing) -> T:
    """Run `work`; when cancelled, call `stop` and wait until `work` has ended by itself.

    So neither a database transaction nor a call to a provider is broken off in the middle. SQLite
    in particular stays locked for seconds after a transaction that was. What the work then fails
    with is dropped: it must not stand in for the cancellation, which somebody waits for.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def claimed(claim: Coroutine[Any, Any, T], give_back: Callable[[T], Awaitable[object]]) -> T:
    """Run `claim`; when cancelled, wait for it and give back what it has taken.

    What that fails with is dropped, as by `drained`: the claim's lease ends in time.
    """
    task = asyncio.create_task(claim)

    async def undo() -> None:
        await give_back(await task)

    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(undo(), return_exceptions=True)
        raise


async def take_due(
    due: Callable[[int], Awaitable[Sequence[T]]],
    take: Callable[[T], Coroutine[Any, Any, None]],
    *,
    concurrency: int,
    poll_seconds: float,
    woken: asyncio.Event | None = None,
) -> None:
    """Take what is due, for ever, so many at once. When cancelled, cancel what is under way.

    Args:
        due: Claims at most so many.
        take: Handles one; on cancellation it should give the claim back.
        poll_seconds: Looks this often.
        woken: Looks at once when it is set.
    """
    woken = woken or asyncio.Event()
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            woken.clear()
            free = concurrency - len(running)
            running |= {asyncio.create_task(take(one)) for one in await due(free)}
            if len(running) < concurrency:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(poll_seconds):
                        await woken.wait()
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running -= {task for task in running if task.done()}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
