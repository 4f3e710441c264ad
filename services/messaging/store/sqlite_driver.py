"""SQLite's driver, with few visits to its thread: one for most statements, instead of four, and
none for those that are done sooner than the thread has heard of them."""

import asyncio
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import aiosqlite

BEGIN_WRITING = "BEGIN IMMEDIATE"
"""Begins a transaction by taking the lock for writing."""

_END_SECONDS = 5.0
_AWAY_SECONDS = 0.005
"""So long at most the event loop is kept by one statement after the other."""
_SHORT_PARAMETERS = 16 * 1024
_LONG_SECONDS = 0.02
_REMEMBERED_SECONDS = 60.0
_MOST_REMEMBERED = 1000


class SqliteConnections:
    """The connections of one database, each with its thread."""

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._long = _LongStatements()

    def connect(self, *arguments: Any, **options: Any) -> aiosqlite.Connection:
        """Like `aiosqlite.connect`; SQLAlchemy takes it as `async_creator_fn`."""
        path, *_ = arguments
        connection = _Connection(lambda: sqlite3.connect(path, **options), 64)
        connection.long = self._long
        # As SQLAlchemy does: it must not keep the process from ending.
        connection._thread.daemon = True
        self._threads.add(connection._thread)
        return connection

    async def ended(self) -> None:
        """Wait for the threads of closed connections, at most five seconds.

        Who was cancelled twice waits for none, and a thread that finds the event loop closed when
        it is done ends with an error.
        """
        end = time.monotonic() + _END_SECONDS
        for thread in list(self._threads):
            while thread.is_alive() and time.monotonic() < end:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)


class _LongStatements:
    """Statements that took long within the last minute."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def __contains__(self, sql: str) -> bool:
        return time.monotonic() - self._at.get(sql, -math.inf) < _REMEMBERED_SECONDS

    def add(self, sql: str) -> None:
        if len(self._at) >= _MOST_REMEMBERED:
            self._at.clear()
        self._at[sql] = time.monotonic()


class _Connection(aiosqlite.Connection):
    """Runs short statements of a writing transaction where they are asked for.

    They wait for nothing: the lock is theirs, and what they write is synced by the commit. The way
    to the thread and back takes longer than most of them, and on each the two threads may wait
    5 ms for Python's own lock, with all other writers behind them.
    """

    long: _LongStatements
    # While this may write: when the loop last had its turn.
    _turn: float | None = None

    def cursor(self) -> Any:
        return _Cursor(self)

    async def visit(self, run: Any, sql: str, parameters: Iterable[Any]) -> None:
        """Have the thread run a statement."""
        # Not public, and without types; nothing public fetches and keeps what is known of rows.
        await self._execute(run, sql, parameters)  # type: ignore[no-untyped-call]
        if sql == BEGIN_WRITING or self._turn is not None:
            self._turn = time.monotonic()

    def ran_here(self, run: Any, sql: str, parameters: Iterable[Any]) -> bool:
        """Whether a statement has been run without a visit to the thread."""
        if (
            self._turn is None
            or (began := time.monotonic()) - self._turn > _AWAY_SECONDS
            or sql in self.long
            or sum(len(one) for one in parameters if isinstance(one, str)) > _SHORT_PARAMETERS
        ):
            return False
        try:
            run(sql, parameters)
        finally:
            if time.monotonic() - began > _LONG_SECONDS:
                self.long.add(sql)
        return True

    async def commit(self) -> None:
        self._turn = None
        await super().commit()

    async def rollback(self) -> None:
        self._turn = None
        await super().rollback()


class _Cursor:
    """What SQLAlchemy uses of a cursor. Rows are fetched with the statement, as it wants them all.

    The driver makes the cursor, executes, fetches and closes one after the other, and waits each
    time for a thread that has hardly anything to do.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Self:
        if not self._connection.ran_here(self._run, sql, parameters):
            await self._connection.visit(self._run, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        await self._connection.visit(self._run_many, sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _run(self, sql: str, parameters: Any) -> None:
        self._keep(lambda cursor: cursor.execute(sql, parameters))

    def _run_many(self, sql: str, parameters: Any) -> None:
        self._keep(lambda cursor: cursor.executemany(sql, parameters))

    def _keep(self, execute: Callable[[sqlite3.Cursor], Any]) -> None:
        cursor = self._connection._conn.cursor()
        try:
            execute(cursor)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()
