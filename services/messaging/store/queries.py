"""Reading stored messages."""

from sqlalchemy import select

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import Message
from services.messaging.ports.reading import MessagePage
from services.messaging.store.database import Database
from services.messaging.store.models import ConversationRow, IdentityRow, MessageRow
from services.messaging.store.rows import message_of, select_messages


class SqlMessageReader:
    """`MessageReader` on SQLite and PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def message(self, message_id: str) -> Message | None:
        """One message by our id."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select_messages().where(MessageRow.public_id == message_id)
            )
            row = found.first()
        return None if row is None else message_of(row)

    async def messages(
        self, *, limit: int, before: int | None, contact: Identity | None
    ) -> MessagePage:
        """A page of messages older than the position `before`."""
        query = select_messages().order_by(MessageRow.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(MessageRow.id < before)
        if contact is not None:
            query = query.where(
                MessageRow.conversation_id.in_(
                    select(ConversationRow.id)
                    .join(IdentityRow, IdentityRow.contact_id == ConversationRow.contact_id)
                    .where(
                        IdentityRow.kind == contact.kind.value, IdentityRow.value == contact.value
                    )
                )
            )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        page = rows[:limit]
        return MessagePage(
            messages=tuple(message_of(row) for row in page),
            next_before=page[-1].id if len(rows) > limit else None,
        )
