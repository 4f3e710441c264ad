"""Connections and transactions: PostgreSQL or SQLite, pooled, with slow queries logged."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import structlog
from sqlalchemy import Engine, event
from sqlalchemy import text as sql
from sqlalchemy.engine import URL, Connection, ExecutionContext, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.common.errors import UnavailableError
from services.messaging.store.idle_check import check_idle_connections
from services.messaging.store.sqlite_driver import BEGIN_WRITING, SqliteConnections

log = structlog.get_logger(__name__)

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_SQLITE_PRAGMAS: Mapping[str, str] = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "busy_timeout": "10000",
    "foreign_keys": "ON",
}
_EVENTS_ADDED = "events_added"
_TOUCH = {
    "sqlite": "UPDATE alembic_version SET version_num = version_num",
    "postgresql": "UPDATE alembic_version SET version_num = version_num WHERE version_num IN"
    " (SELECT version_num FROM alembic_version FOR UPDATE SKIP LOCKED)",
}
# The disk is full, broken or read-only. https://sqlite.org/rescode.html and
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CANT_WRITE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "53100", "58030", "25006")
_HELD_SECONDS = 10
"""After so long without a statement PostgreSQL ends a transaction. A process that is frozen in the
middle of one, or whose machine is gone, would hold up all others for as long."""
_REFUSING_SECONDS = 10.0


def database_url(text: str, *, asynchronous: bool) -> URL:
    """The SQLAlchemy URL for a `DATABASE_URL`, with our drivers.

    Raises:
        ValueError: It is no URL, or of another database.
    """
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError) as error:
        raise ValueError("must be a URL such as postgresql://user:password@host/name") from error
    kind = url.drivername.split("+")[0]
    if kind == "sqlite":
        return url.set(drivername="sqlite+aiosqlite" if asynchronous else "sqlite")
    if kind not in _DRIVERS:
        raise ValueError("must begin with postgresql:// or sqlite:///")
    return url.set(drivername=_DRIVERS[kind])


class Database:
    """Hands out transactions.

    SQLite allows one writer: writing transactions queue here in the process, and take the
    write lock at their beginning so that they can't fail in the middle.

    Args:
        on_events: Called after a commit that added message events.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        max_overflow: int,
        pool_timeout_seconds: float,
        slow_query_seconds: float,
        on_events: Callable[[], None] = lambda: None,
    ) -> None:
        parsed = database_url(url, asynchronous=True)
        self.dialect = parsed.get_backend_name()
        options: dict[str, Any] = {}
        self._sqlite = SqliteConnections()
        if self.dialect == "postgresql":
            options = {
                "pool_recycle": 1800,
                "connect_args": {
                    "connect_timeout": 5,
                    "options": "-c timezone=utc"
                    f" -c idle_in_transaction_session_timeout={_HELD_SECONDS}s",
                },
            }
        else:
            options = {"connect_args": {"async_creator_fn": self._sqlite.connect}}
        self._engine: AsyncEngine = create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=pool_timeout_seconds,
            # Parameters are what customers wrote: never in an error or a log.
            hide_parameters=True,
            **options,
        )
        self._sqlite_writer = asyncio.Lock()
        self._refused_at: float | None = None
        self._on_events = on_events
        _note_events(self._engine.sync_engine)
        _log_slow_queries(self._engine.sync_engine, slow_query_seconds)
        if self.dialect == "sqlite":
            _prepare_sqlite(self._engine.sync_engine)
        else:
            check_idle_connections(self._engine.sync_engine)

    @contextlib.asynccontextmanager
    async def read(self, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads.

        Args:
            snapshot: Every statement sees what the first saw, as always on SQLite. Otherwise one
                may miss what another has found: contacts are merged meanwhile, for example.

        Raises:
            UnavailableError: The database can't be reached.
        """
        with _translated_errors():
            async with self._engine.connect() as connection:
                if snapshot and self.dialect == "postgresql":
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                async with connection.begin():
                    yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed when the block ends, and rolled back if it raises.

        Raises:
            UnavailableError: The database can't be reached, or gave up a deadlock: nothing was
                written, or, when the connection broke during the commit, it is not known.
            ValueError: A value doesn't fit the column.
        """
        try:
            with _translated_errors():
                async with self._writing() as connection:
                    connection.info.pop(_EVENTS_ADDED, None)
                    yield connection
                    added = connection.info.pop(_EVENTS_ADDED, False)
        except CantWriteError:
            self._refused_at = time.monotonic()
            raise
        if added:
            self._on_events()

    @property
    def refusing(self) -> bool:
        """Whether a write has failed just now because nothing more can be written."""
        at = self._refused_at
        return at is not None and time.monotonic() - at < _REFUSING_SECONDS

    async def check_writing(self) -> None:
        """Write what stands there already: a full disk answers every question.

        While others write or migrate nothing is done: how that ends shows as much.

        Raises:
            UnavailableError: The database can't be reached, or can't write.
        """
        if self._sqlite_writer.locked():
            return
        async with self.write() as connection:
            await connection.execute(sql(_TOUCH[self.dialect]))

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        if self.dialect != "sqlite":
            async with self._engine.begin() as connection:
                yield connection
            return
        async with self._sqlite_writer, self._engine.connect() as connection:
            writing = await connection.execution_options(sqlite_begin=BEGIN_WRITING)
            async with writing.begin():
                yield writing

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
        await self._sqlite.ended()


class CantWriteError(UnavailableError):
    """The database answers, and nothing can be written there."""


def _cant_write(error: Exception) -> bool:
    driver = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)
    return isinstance(code, str) and code.startswith(_CANT_WRITE)


@contextlib.contextmanager
def _translated_errors() -> Any:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if _cant_write(error):
            raise CantWriteError("the database can't write, try again later") from error
        raise UnavailableError("the database doesn't answer, try again shortly") from error
    except DataError as error:
        raise ValueError("a value doesn't fit its column") from error
    except IntegrityError:
        raise
    except DBAPIError as error:
        if _cant_write(error):
            raise CantWriteError("the database can't write, try again later") from error
        if error.connection_invalidated:
            raise UnavailableError("the database connection broke, try again") from error
        raise


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # The driver would begin transactions by itself, too late to take the write lock.
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in _SQLITE_PRAGMAS.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        begin = connection.get_execution_options().get("sqlite_begin", "BEGIN DEFERRED")
        connection.exec_driver_sql(begin)


def _note_events(engine: Engine) -> None:
    """Note on the connection that a transaction adds message events, whoever adds them."""

    @event.listens_for(engine, "after_cursor_execute")
    def after(
        connection: Connection,
        cursor: DBAPICursor,
        statement: str,
        parameters: object,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        if statement.startswith("INSERT INTO message_events "):
            connection.info[_EVENTS_ADDED] = True


def _log_slow_queries(engine: Engine, threshold_seconds: float) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def before(
        connection: Connection,
        cursor: DBAPICursor,
        statement: str,
        parameters: object,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        connection.info["query_started"] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(
        connection: Connection,
        cursor: DBAPICursor,
        statement: str,
        parameters: object,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        seconds = time.perf_counter() - connection.info["query_started"]
        # SQLite's BEGIN is a wait for its turn.
        if seconds >= threshold_seconds and not statement.startswith("BEGIN"):
            log.warning(
                "slow query", seconds=round(seconds, 3), statement=" ".join(statement.split())
            )
