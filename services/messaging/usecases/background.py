"""Work that is not broken off in the middle when it is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def _nothing() -> None:
    pass


async def drained(work: Coroutine[Any, Any, T], stop: Callable[[], None] = _nothing) -> T:
    """Run `work`; when cancelled, call `stop` and wait until `work` has ended by itself.

    So neither a database transaction nor a call to a provider is broken off in the middle. SQLite
    in particular stays locked for seconds after a transaction that was.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await task
        raise
