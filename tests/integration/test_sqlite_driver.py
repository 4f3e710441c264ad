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
async def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing takes long unless it is told to."""
    monkeypatch.setattr(sqlite_driver, "_AWAY_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_driver, "_QUICK_SECONDS", 1.0)


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


@pytest.mark.usefixtures("unhurried")
async def test_quick_statements_that_may_write_run_with_the_loop(database: Database) -> None:
    """Once they are known, in one transaction after the other; reading is for the thread."""
    async with database.write() as connection:
        await teach(connection)
        assert [await with_loop(connection) for _ in range(3)] == [False, True, True]
    async with database.write() as connection:
        assert await with_loop(connection)
    async with database.read() as connection:
        assert not await with_loop(connection)


@pytest.mark.usefixtures("unhurried")
async def test_what_may_take_long_runs_in_the_thread(database: Database) -> None:
    """Much to write, and what took long the last time, wherever that was."""
    async with database.write() as connection:
        await teach(connection)
        await with_loop(connection)
        assert not await with_loop(connection, content="x" * 20_000)
        assert await with_loop(connection, seconds=1.2)
        assert not await with_loop(connection, seconds=1.2)
        assert not await with_loop(connection)
        assert await with_loop(connection)


@pytest.mark.usefixtures("unhurried")
async def test_many_rows_are_written_in_the_thread(database: Database) -> None:
    """One statement for any number of them."""
    threads: set[int] = set()
    async with database.write() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.create_function("noted", 1, lambda _: threads.add(threading.get_ident()))
        await connection.execute(sql("CREATE TEMP TABLE some (value)"))
        for _ in range(2):
            rows = [{"value": number} for number in range(3)]
            await connection.execute(sql("INSERT INTO some VALUES (noted(:value))"), rows)
    assert threading.get_ident() not in threads


async def test_the_loop_has_its_turns(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes much, bit by bit, keeps nobody waiting for long."""
    monkeypatch.setattr(sqlite_driver, "_QUICK_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_driver, "_AWAY_SECONDS", 1.0)
    async with database.write() as connection:
        await teach(connection)
        await with_loop(connection)
        ran_with_loop = [await with_loop(connection, seconds=0.6) for _ in range(4)]
    assert ran_with_loop == [True, True, False, True]


async def test_the_lock_is_waited_for_in_the_thread(database: Database, database_url: str) -> None:
    """The loop goes on while somebody else keeps the database locked."""
    path = database_url.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.2, other.execute, "COMMIT")
    async with asyncio.timeout(5), database.write():
        pass
    other.close()


@pytest.mark.usefixtures("unhurried")
async def test_without_the_lock_nothing_runs_with_the_loop(database: Database) -> None:
    """It is gone after a failure, and when SQLite itself has ended the transaction."""

    async def fail() -> None:
        async with database.write() as connection:
            await teach(connection)
            await with_loop(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert not await with_loop(connection)
    async with database.write() as connection:
        assert await with_loop(connection)
        await connection.execute(sql("ROLLBACK"))
        assert not await with_loop(connection)
        await connection.execute(sql("BEGIN"))
