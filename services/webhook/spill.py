"""Where events wait while the journal can't be reached: a small SQLite file, fsynced.

Twilio gives an event up after at most 15 seconds
(https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides), so refusing it until
the broker is back would lose it.
"""

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import structlog

from services.common.errors import UnavailableError
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError
from services.common.tracing import detached, sent_traceparent

log = structlog.get_logger(__name__)

T = TypeVar("T")

# What a row takes beside the event's own bytes, roughly: columns, index, page overhead.
_ROW_BYTES = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spill (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    time TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    data BLOB NOT NULL,
    bytes INTEGER NOT NULL
)
"""


class SpillUnavailableError(UnavailableError):
    """The event could not be written to the local disk."""


class SpillFullError(SpillUnavailableError):
    """The spill holds as much as it may."""


@dataclass(slots=True, eq=False)
class _Put:
    event: JournalEvent
    bytes: int
    future: asyncio.Future[None]


class Spill:
    """A bounded queue of events on disk that survives the process.

    One thread owns the database. What arrives while a commit is under way is committed together.

    Args:
        path: The database file; its folder is created. Only one process may use it at a time.
        max_bytes: Bytes of events at which more are refused.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spill")
        self._waiting: list[_Put] = []
        self._writer: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._failed = False
        self._reserved = 0
        self.events = 0
        """Events that wait."""
        self.bytes = 0
        """About as many bytes as they take."""

    @property
    def accepting(self) -> bool:
        """Whether an event would probably be taken: the last write worked and there is room."""
        return not self._failed and self.bytes < self._max_bytes

    async def open(self) -> None:
        """Open the database and find what an earlier process left.

        Raises:
            SpillUnavailableError: The file can't be created, is damaged, or belongs to another
                process.
        """
        await self._in_thread(self._open)
        if self.events:
            self._arrived.set()
            log.warning("the spill holds events of an earlier run", events=self.events)

    async def close(self) -> None:
        """Finish what is being written and let go of the file."""
        while self._writer is not None:
            await self._writer
        await self._in_thread(lambda: self._database.close())
        self._thread.shutdown()

    async def put(self, event: JournalEvent) -> None:
        """Keep `event` on disk; returns once it is there. A key that waits already stays once.

        Raises:
            SpillFullError: There is no room left.
            SpillUnavailableError: The disk refused the write.
        """
        size = len(event.data) + len(event.key) + _ROW_BYTES
        if self.bytes + self._reserved + size > self._max_bytes:
            raise SpillFullError("the spill is full")
        self._reserved += size
        loop = asyncio.get_running_loop()
        put = _Put(event, size, loop.create_future())
        self._waiting.append(put)
        if self._writer is None:
            self._writer = loop.create_task(self._write_waiting(), context=detached())
        await put.future

    async def watch(self, *, seconds: float = 3.0) -> None:
        """Find out for ever whether the disk takes anything, before it is needed."""
        while True:
            await asyncio.sleep(seconds)
            if self._writer is not None:
                continue
            try:
                await self._in_thread(self._touch)
            except SpillUnavailableError as error:
                if not self._failed:
                    log.warning("the spill can't be written", error=str(error))
                self._failed = True
            else:
                self._failed = False

    async def forward(self, journal: JournalPublisher, *, retry_seconds: float = 1.0) -> None:
        """Move events into the journal in order, for ever; each is deleted once confirmed."""
        while True:
            if not self.events:
                self._arrived.clear()
                await self._arrived.wait()
            if not journal.connected or not await self._forward_some(journal):
                await asyncio.sleep(retry_seconds)

    async def _forward_some(self, journal: JournalPublisher) -> bool:
        """Whether the journal took all that was offered."""
        try:
            rows = await self._in_thread(self._oldest)
        except SpillUnavailableError as error:
            log.warning("the spill can't be read", error=str(error))
            return False
        outcomes = await asyncio.gather(
            *(journal.publish(event) for _, event in rows), return_exceptions=True
        )
        confirmed = []
        for (position, _), outcome in zip(rows, outcomes, strict=True):
            if outcome is None:
                confirmed.append(position)
            elif not isinstance(outcome, JournalUnavailableError):
                raise outcome
        if confirmed:
            try:
                deleted = await self._in_thread(lambda: self._delete(confirmed))
            except SpillUnavailableError as error:
                # They will be published again, which the journal notices by their ids.
                log.warning("the spill can't be written", error=str(error))
                return False
            self.events -= len(deleted)
            self.bytes -= sum(deleted)
            log.info("spilled events are in the journal", events=len(confirmed), left=self.events)
        return bool(rows) and len(confirmed) == len(rows)

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                added = await self._in_thread(functools.partial(self._insert, batch))
            except SpillUnavailableError as error:
                self._failed = True
                log.warning("the spill can't be written", error=str(error))
                for put in batch:
                    if not put.future.done():
                        put.future.set_exception(SpillUnavailableError(str(error)))
            else:
                self._failed = False
                self.events += len(added)
                self.bytes += sum(added)
                self._arrived.set()
                for put in batch:
                    if not put.future.done():
                        put.future.set_result(None)
            self._reserved -= sum(put.bytes for put in batch)
        self._writer = None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise SpillUnavailableError(f"{self._path}: {error}") from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=1.0
        )
        try:
            # The lock is kept, so that two processes never forward the same events.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(_SCHEMA)
            self._database.execute("COMMIT")
            query = "SELECT count(*), coalesce(sum(bytes), 0) FROM spill"
            self.events, self.bytes = self._database.execute(query).fetchone()
        except BaseException:
            self._database.close()
            raise
        # A new file is only safe once its folder is on disk too.
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _insert(self, batch: list[_Put]) -> list[int]:
        """The sizes of the rows that are new."""
        added = []
        with _transaction(self._database):
            for put in batch:
                event = put.event
                cursor = self._database.execute(
                    "INSERT INTO spill (key, kind, source, time, traceparent, data, bytes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                    (
                        event.key,
                        event.kind.name,
                        event.source,
                        event.time.isoformat(),
                        event.traceparent,
                        event.data,
                        put.bytes,
                    ),
                )
                if cursor.rowcount:
                    added.append(put.bytes)
        return added

    def _touch(self) -> None:
        """Write something, if only what stands there already."""
        with _transaction(self._database):
            self._database.execute("PRAGMA user_version = 1")

    def _oldest(self, limit: int = 128) -> list[tuple[int, JournalEvent]]:
        # A kind that only a newer release knows stays for that release.
        rows = self._database.execute(
            "SELECT position, key, kind, source, time, traceparent, data FROM spill"
            " WHERE kind IN (SELECT value FROM json_each(?)) ORDER BY position LIMIT ?",
            (json.dumps([kind.name for kind in EventKind]), limit),
        )
        return [
            (
                position,
                JournalEvent(
                    kind=EventKind[kind],
                    key=key,
                    source=source,
                    time=datetime.fromisoformat(time),
                    data=data,
                    traceparent=sent_traceparent(traceparent),
                ),
            )
            for position, key, kind, source, time, traceparent, data in rows
        ]

    def _delete(self, positions: list[int]) -> list[int]:
        """The sizes of the rows that are gone."""
        delete = "DELETE FROM spill WHERE position = ? RETURNING bytes"
        with _transaction(self._database):
            return [self._database.execute(delete, (p,)).fetchone()[0] for p in positions]


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
