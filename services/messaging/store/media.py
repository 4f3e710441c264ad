"""Messages whose files are still to be fetched."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update

from services.messaging.ports.clock import Clock
from services.messaging.ports.media import MediaTask, StoredFile
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow
from services.messaging.store.work_models import MediaFetchRow


class SqlMediaQueue:
    """`MediaQueue` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, *, limit: int, lease: timedelta) -> Sequence[MediaTask]:
        """Take messages whose time has come."""
        if limit <= 0:
            return ()
        now = self._clock()
        due = (
            select(MediaFetchRow.message_id, MediaFetchRow.attempts)
            .where(
                MediaFetchRow.due_at <= now,
                or_(MediaFetchRow.lease_until.is_(None), MediaFetchRow.lease_until <= now),
            )
            .order_by(MediaFetchRow.due_at)
            .limit(limit)
        )
        async with self._database.read() as connection:
            # The common answer is "nothing", and it should not take SQLite's write lock.
            if not (await connection.execute(due)).first():
                return ()
        async with self._database.write() as connection:
            claimed = (await connection.execute(due.with_for_update(skip_locked=True))).all()
            attempts = {row.message_id: row.attempts + 1 for row in claimed}
            await connection.execute(
                update(MediaFetchRow)
                .where(MediaFetchRow.message_id.in_(attempts))
                .values(lease_until=now + lease, attempts=MediaFetchRow.attempts + 1)
            )
            messages = await connection.execute(
                select(
                    MessageRow.id,
                    MessageRow.public_id,
                    MessageRow.provider,
                    MessageRow.media,
                    MessageRow.traceparent,
                ).where(MessageRow.id.in_(attempts))
            )
            return [
                MediaTask(
                    message_id=row.public_id,
                    provider=row.provider,
                    urls={
                        place: one["url"]
                        for place, one in enumerate(row.media)
                        if "id" not in one and "problem" not in one
                    },
                    attempt=attempts[row.id],
                    lease_until=now + lease,
                    traceparent=row.traceparent or "",
                )
                for row in messages
            ]

    async def settle(
        self,
        task: MediaTask,
        results: Mapping[int, StoredFile | str],
        retry_at: datetime | None,
    ) -> None:
        """Note what became of files, by their place; a text says why there will be none."""
        async with self._database.write() as connection:
            row = (
                await connection.execute(
                    select(MediaFetchRow.message_id, MediaFetchRow.lease_until)
                    .join(MessageRow, MessageRow.id == MediaFetchRow.message_id)
                    .where(MessageRow.public_id == task.message_id)
                    .with_for_update(of=MediaFetchRow)
                )
            ).first()
            # Otherwise another process has taken over, and fetches the same files.
            if row is None or row.lease_until != task.lease_until:
                return
            message = MessageRow.id == row.message_id
            if results:
                media = list(
                    await connection.scalar(
                        select(MessageRow.media).where(message).with_for_update(key_share=True)
                    )
                    or []
                )
                for place, result in results.items():
                    media[place] = {**media[place], **_noted(result)}
                await connection.execute(update(MessageRow).where(message).values(media=media))
            fetch = MediaFetchRow.message_id == row.message_id
            if retry_at is None:
                await connection.execute(delete(MediaFetchRow).where(fetch))
            else:
                await connection.execute(
                    update(MediaFetchRow).where(fetch).values(due_at=retry_at, lease_until=None)
                )


def _noted(result: StoredFile | str) -> dict[str, str | int]:
    if isinstance(result, str):
        return {"problem": result}
    return {"id": result.id, "size_bytes": result.size_bytes}
