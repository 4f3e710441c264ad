"""Background work that finishes what it has begun when it is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine


async def drained(work: Coroutine[None, None, None], stop: Callable[[], None]) -> None:
    """Run `work`; when cancelled, call `stop` and wait until `work` has returned by itself.

    So neither a database transaction nor a call to a provider is broken off in the middle.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await task
        raise
