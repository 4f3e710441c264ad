"""Counting what came and went."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import MessageStatus
from services.messaging.ports.activity import Activity
from services.messaging.ports.clock import Clock
from services.messaging.store.call_models import CallRow
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow

_HOUR: Final = timedelta(hours=1)


class SqlActivityReader:
    """`ActivityReader` on SQLite and PostgreSQL.

    Hours that are long over are counted once: what still arrives for them, after a long absence
    of the journal, is left out.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._past: dict[datetime, Activity] = {}

    async def since(self, span: timedelta) -> Activity:
        """What came and went in the span that ends now."""
        now = self._clock()
        async with self._database.read() as connection:
            return await _count(connection, now - span, None)

    async def hours(self, count: int) -> Sequence[Activity]:
        """The same for each of the last hours, the oldest first."""
        current = self._clock().replace(minute=0, second=0, microsecond=0)
        starts = [current - back * _HOUR for back in reversed(range(count))]
        found = []
        async with self._database.read() as connection:
            for start in starts:
                hour = self._past.get(start) or await _count(connection, start, start + _HOUR)
                found.append(hour)
        self._past = {hour.since: hour for hour in found if hour.since < current - _HOUR}
        return found


async def _count(connection: AsyncConnection, since: datetime, until: datetime | None) -> Activity:
    messages, calls = [MessageRow.created_at >= since], [CallRow.started_at >= since]
    if until is not None:
        messages.append(MessageRow.created_at < until)
        calls.append(CallRow.started_at < until)
    # Only inbound messages have this status, and its index has the time.
    is_inbound = MessageRow.status == MessageStatus.RECEIVED.value
    every = await connection.scalar(select(func.count()).where(*messages))
    inbound = await connection.scalar(select(func.count()).where(is_inbound, *messages))
    called = await connection.scalar(select(func.count()).where(*calls))
    return Activity(since, inbound or 0, (every or 0) - (inbound or 0), called or 0)
