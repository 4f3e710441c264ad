"""What is due, and until when it is claimed, of all tables that say so."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Update, select, update

from services.messaging.ports.clock import Clock
from services.messaging.store.call_models import CallTurnRow
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow
from services.messaging.store.work_models import LeaseRow, MediaFetchRow, OutboxRow, PendingReplyRow

_LATELY: Final = 200
"""Messages of which one was made while the clock was ahead, if any was."""

_SKEW: Final = timedelta(seconds=5)
"""By so much clocks may differ; health says when they differ by more."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class SqlSchedule:
    """`Schedule` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def latest_ahead(self) -> datetime | None:
        """The latest time that something was stored at of late, if that is still to come."""
        newest = select(MessageRow.created_at).order_by(MessageRow.id.desc()).limit(_LATELY)
        async with self._database.read() as connection:
            times = (await connection.scalars(newest)).all()
        latest = max(times, default=_LONG_AGO)
        return latest if latest > self._clock() + _SKEW else None

    async def bring_forward(self, *, longest_lease: timedelta) -> int:
        """Make due at once what would be due later, and end claims that were made for too long."""
        changed = 0
        for change in _changes(self._clock(), longest_lease):
            # One by one: whoever needs several of these tables locks them in an order of its own.
            async with self._database.write() as connection:
                changed += (await connection.execute(change)).rowcount
        return changed


def _changes(now: datetime, longest_lease: timedelta) -> Iterator[Update]:
    # A replay holds what it restores, and says itself when that ends.
    yield (
        update(OutboxRow)
        .where(OutboxRow.due_at > now, OutboxRow.restored.is_(False))
        .values(due_at=now)
    )
    for waiting in (PendingReplyRow, MediaFetchRow):
        yield update(waiting).where(waiting.due_at > now).values(due_at=now)
    paced = ConversationRow.paced_until
    yield update(ConversationRow).where(paced > now).values(paced_until=now)
    latest = now + longest_lease
    for claimed in (OutboxRow, PendingReplyRow, MediaFetchRow, CallTurnRow):
        yield update(claimed).where(claimed.lease_until > latest).values(lease_until=latest)
    # Its holder asks for it again, unless it is gone.
    yield update(LeaseRow).where(LeaseRow.lease_until > now).values(lease_until=now)
