"""SQLite's driver, with one visit to its thread for a statement instead of four."""

import asyncio
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Self

import aiosqlite

_END_SECONDS = 5.0


class SqliteConnections:
    """The connections of one database, each with its thread."""

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def connect(self, *arguments: Any, **options: Any) -> aiosqlite.Connection:
        """Like `aiosqlite.connect`; SQLAlchemy takes it as `async_creator_fn`."""
        path, *_ = arguments
        connection = _Connection(lambda: sqlite3.connect(path, **options), 64)
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


class _Connection(aiosqlite.Connection):
    def cursor(self) -> Any:
        return _Cursor(self)


class _Cursor:
    """What SQLAlchemy uses of a cursor. Rows are fetched with the statement, as it wants them all.

    The driver makes the cursor, executes, fetches and closes one after the other, and waits each
    time for a thread that has hardly anything to do.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        # Not public, and without types; nothing public fetches and keeps what is known of rows.
        self._visit: Any = connection._execute
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Self:
        await self._visit(self._run, sqlite3.Cursor.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        await self._visit(self._run, sqlite3.Cursor.executemany, sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _run(self, execute: Any, sql: str, parameters: Any) -> None:
        cursor = self._connection._conn.cursor()
        try:
            execute(cursor, sql, parameters)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()
