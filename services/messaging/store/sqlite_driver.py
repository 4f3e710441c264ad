"""SQLite's driver, with few visits to its thread: one for most statements, instead of four, and
none for those that are done sooner than the thread has heard of them."""

import asyncio
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
_QUICK_SECONDS = 0.01
_MOST_KNOWN = 1000


class SqliteConnections:
    """The connections of one database, each with its thread."""

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._quick = _QuickStatements()

    def connect(self, *arguments: Any, **options: Any) -> aiosqlite.Connection:
        """Like `aiosqlite.connect`; SQLAlchemy takes it as `async_creator_fn`."""
        path, *_ = arguments
        connection = _Connection(lambda: sqlite3.connect(path, **options), 64)
        connection.quick = self._quick
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


class _QuickStatements:
    """Statements that were quick when they were run last. Any thread may ask."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __contains__(self, sql: str) -> bool:
        return sql in self._known

    def took(self, sql: str, seconds: float) -> None:
        """Remember how long one has taken."""
        if seconds > _QUICK_SECONDS:
            self._known.discard(sql)
        elif sql not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.add(sql)


class _Connection(aiosqlite.Connection):
    """Runs quick statements of a writing transaction where they are asked for.

    They wait for nothing: the lock is theirs, and what they write is synced by the commit. The way
    to the thread and back takes longer than most of them, and on each the two threads may wait
    5 ms for Python's own lock, with all other writers behind them.
    """

    quick: _QuickStatements
    # While this may write: when the loop last had its turn.
    _turn: float | None = None

    def cursor(self) -> Any:
        return _Cursor(self)

    async def run(self, run: Callable[[str, Any], None], sql: str, parameters: Any) -> None:
        """Run a statement, here or in the thread."""
        if self._runs_here(sql, parameters):
            self._timed(run, sql, parameters)
        else:
            await self.visit(run, sql, parameters)

    async def visit(self, run: Callable[[str, Any], None], sql: str, parameters: Any) -> None:
        """Have the thread run a statement."""
        # Not public, and without types; nothing public fetches and keeps what is known of rows.
        await self._execute(self._timed, run, sql, parameters)  # type: ignore[no-untyped-call]
        if sql == BEGIN_WRITING or self._turn is not None:
            self._turn = time.monotonic()

    def _runs_here(self, sql: str, parameters: Any) -> bool:
        return (
            self._turn is not None
            and time.monotonic() - self._turn < _AWAY_SECONDS
            and sql in self.quick
            # Not if SQLite has ended it, as it may when it can't write.
            and self._conn.in_transaction
            and sum(len(one) for one in parameters if isinstance(one, str | bytes))
            < _SHORT_PARAMETERS
        )

    def _timed(self, run: Callable[[str, Any], None], sql: str, parameters: Any) -> None:
        began = time.monotonic()
        try:
            run(sql, parameters)
        finally:
            self.quick.took(sql, time.monotonic() - began)

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
        await self._connection.run(self._run, sql, parameters)
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
