import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
import structlog
from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import UnavailableError
from services.messaging.store import database as database_module
from services.messaging.store import idle_check
from services.messaging.store.contact_models import ContactRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.database import database_url as parsed_url
from tests.support.ports import free_port


def open_database(url: str, *, slow_query_seconds: float = 10, pool_size: int = 2) -> Database:
    return Database(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout_seconds=0.3,
        slow_query_seconds=slow_query_seconds,
    )


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = open_database(database_url)
    yield opened
    await opened.close()


async def add_contact(connection: AsyncConnection, name: str) -> None:
    await connection.execute(
        insert(ContactRow),
        [{"public_id": uuid4().hex, "display_name": name, "created_at": datetime.now(UTC)}],
    )


async def contacts(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(ContactRow))).scalar_one()


async def test_slow_queries_are_logged_without_what_customers_wrote(database_url: str) -> None:
    """A slow query's text is logged; its parameters, which hold messages, never are."""
    database = open_database(database_url, slow_query_seconds=0)
    with structlog.testing.capture_logs() as logs:
        async with database.read() as connection:
            await connection.execute(select(literal("my secret message")))
    await database.close()
    slow = [line for line in logs if line["event"] == "slow query"]
    assert [line["statement"] for line in slow if line["statement"].startswith("SELECT")]
    assert "secret" not in str(logs)


async def test_errors_do_not_carry_parameters(database: Database) -> None:
    """An error of the database doesn't show what was being written."""
    row = {"contact_id": 999, "kind": "phone", "value": "+15550001111"}
    with pytest.raises(IntegrityError) as raised:
        async with database.write() as connection:
            await connection.execute(insert(IdentityRow), [row])
    assert "+15550001111" not in str(raised.value)


async def test_a_failed_block_writes_nothing(database: Database) -> None:
    """Whatever raises inside a writing block, none of it is kept."""

    async def fail_after_writing() -> None:
        async with database.write() as connection:
            await add_contact(connection, "x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_writing()
    assert await contacts(database) == 0


async def test_many_writers_all_get_their_turn(database: Database) -> None:
    """Concurrent read-then-write transactions neither fail nor lose an update."""

    async def add_one() -> None:
        async with database.write() as connection:
            count = await connection.scalar(select(func.count()).select_from(ContactRow))
            await add_contact(connection, str(count))

    # Two at a time, so that the small pool's time limit is not what is tested.
    for _ in range(20):
        await asyncio.gather(add_one(), add_one())
    assert await contacts(database) == 40


async def test_a_used_up_pool_is_a_clear_error(database_url: str) -> None:
    """When every connection is taken the caller is told to try again, after a bounded wait."""
    database = open_database(database_url, pool_size=1)
    async with database.read():
        with pytest.raises(UnavailableError, match="try again"):
            async with database.read():
                pass
    await database.close()


async def test_an_absent_server_is_a_clear_error() -> None:
    """A database that isn't there is unavailable, and its password isn't in the error."""
    database = open_database(f"postgresql://me:hunter2@127.0.0.1:{free_port()}/x")
    with pytest.raises(UnavailableError) as raised:
        async with database.read():
            pass
    await database.close()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("idle", [True, False])
async def test_a_connection_that_breaks_while_idle_is_replaced(
    database: Database, database_url: str, idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody notices. When all break right after their use, one user is told to try again."""
    monkeypatch.setattr(idle_check, "_IDLE_SECONDS", 0.0 if idle else 600.0)
    pid = select(func.pg_backend_pid())
    async with database.read() as first, database.read() as second:
        broken = [await connection.scalar(pid) for connection in (first, second)]
    with psycopg.connect(database_url, autocommit=True) as administrator:
        administrator.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (broken,))
    for refused in (not idle, False):
        with pytest.raises(UnavailableError) if refused else contextlib.nullcontext():
            async with database.read() as connection:
                assert await connection.scalar(pid) not in broken


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_process_that_freezes_in_a_transaction_holds_up_nobody_for_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has locked is free again after a while, and it learns that nothing was written."""
    monkeypatch.setattr(database_module, "_HELD_SECONDS", 1)
    frozen, other = open_database(database_url), open_database(database_url)
    rename = update(ContactRow).values(display_name="Noa")
    async with other.write() as connection:
        await add_contact(connection, "Dana")

    async def freeze() -> None:
        async with frozen.write() as connection:
            await connection.execute(rename.values(display_name="lost"))
            async with other.write() as another:
                await another.execute(rename)
            await connection.execute(rename)

    with pytest.raises(UnavailableError):
        await freeze()
    async with other.read() as connection:
        assert (await connection.scalars(select(ContactRow.display_name))).all() == ["Noa"]
    for database in (frozen, other):
        await database.close()


@pytest.mark.parametrize("url", ["mysql://h/x", "nonsense", "", "http://h", "postgresql"])
def test_other_urls_are_refused(url: str) -> None:
    """A URL that is neither PostgreSQL's nor SQLite's is refused before anything connects."""
    with pytest.raises(ValueError, match="must be"):
        parsed_url(url, asynchronous=True)


async def test_no_thread_outlives_a_database_that_is_closed(database_url: str) -> None:
    """It would find the event loop closed: both a query and waiting for its end were cancelled."""
    before = set(threading.enumerate())
    database = open_database(database_url)
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 2_000_000))

    async def count() -> None:
        async with database.read() as connection:
            await connection.execute(select(func.count()).select_from(numbers))

    counting = asyncio.create_task(count())
    await asyncio.sleep(0.1)
    for _ in range(2):
        counting.cancel()
        await asyncio.sleep(0.01)
    await asyncio.gather(counting, return_exceptions=True)
    await database.close()
    assert set(threading.enumerate()) <= before
