"""Where SQLite's statements run: with the event loop, or in their connection's thread."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.store import sqlite_driver
from services.messaging.store.database import Database

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

WHERE = sql("SELECT here(:seconds, :content)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(
        database_url,
        pool_size=1,
        max_overflow=0,
        pool_timeout_seconds=5,
        slow_query_seconds=10,
    )
    yield opened
    await opened.close()


async def teach(connection: AsyncConnection) -> None:
    """Let SQL ask which thread it runs in, after some time."""
    raw: Any = (await connection.get_raw_connection()).driver_connection

    def here(seconds: float, content: str) -> int:
        time.sleep(seconds)
        return threading.get_ident()

    await raw.create_function("here", 2, here)


async def with_loop(connection: AsyncConnection, seconds: float = 0, content: str = "") -> bool:
    """Whether a statement that takes so long, with such a parameter, ran in the loop's thread."""
    thread = await connection.scalar(WHERE, {"seconds": seconds, "content": content})
    return bool(thread == threading.get_ident())


async def test_short_statements_that_may_write_run_with_the_loop(database: Database) -> None:
    """As many as there are, in one transaction after the other; reading is for the thread."""
    for _ in range(2):
        async with database.write() as connection:
            await teach(connection)
            assert [await with_loop(connection) for _ in range(3)] == [True] * 3
        async with database.read() as connection:
            assert not await with_loop(connection)


async def test_what_may_take_long_runs_in_the_thread(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With much to write, and for a while what has taken long."""
    async with database.write() as connection:
        await teach(connection)
        assert not await with_loop(connection, content="x" * 20_000)
        assert await with_loop(connection, seconds=0.05)
        assert not await with_loop(connection)
        monkeypatch.setattr(sqlite_driver, "_REMEMBERED_SECONDS", 0.0)
        assert await with_loop(connection)


async def test_the_loop_has_its_turns(database: Database) -> None:
    """Who writes much, bit by bit, keeps nobody waiting for long."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    async with database.write() as connection:
        await teach(connection)
        turns = 0
        ran_with_loop = [await with_loop(connection, seconds=0.003) for _ in range(8)]
    turning.cancel()
    assert ran_with_loop == [True, True, False, True, True, False, True, True]
    assert turns > 0


async def test_the_lock_is_waited_for_in_the_thread(database: Database, database_url: str) -> None:
    """The loop goes on while somebody else keeps the database locked."""
    path = database_url.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.2, other.execute, "COMMIT")
    async with asyncio.timeout(5), database.write() as connection:
        await teach(connection)
        assert await with_loop(connection)
    other.close()


async def test_after_a_failure_nothing_runs_with_the_loop(database: Database) -> None:
    """The lock is gone with the transaction."""

    async def fail() -> None:
        async with database.write() as connection:
            await teach(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert not await with_loop(connection)
