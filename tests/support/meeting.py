"""Two transactions that meet at a chosen moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.store.database import Database
from tests.support.sending import until

_WAITING = text(
    "SELECT 1 FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1"
)


async def meet(
    database: Database,
    first: Callable[[], Awaitable[Any]],
    second: Callable[[], Awaitable[Any]],
    *,
    after: int,
) -> bool:
    """Do `first`, and `second` when so many statements of it are done; False: it has no more.

    `first` goes on once `second` has ended or waits for a lock.
    """
    execute = AsyncConnection.execute
    statements = 0
    others: list[asyncio.Task[None]] = []

    async def ended_or_waits() -> bool:
        if others[0].done():
            return True
        async with database.read() as connection:
            return bool((await execute(connection, _WAITING)).first())

    async def counting(self: AsyncConnection, *values: Any, **named: Any) -> Any:
        nonlocal statements
        result = await execute(self, *values, **named)
        if asyncio.current_task() is task:
            statements += 1
            if statements == after:
                others.append(group.create_task(_done(second)))
                await until(ended_or_waits)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncConnection, "execute", counting)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_done(first))
    return bool(others)


async def _done(work: Callable[[], Awaitable[Any]]) -> None:
    await work()
