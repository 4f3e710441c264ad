"""Which of a provider's messages are stored."""

from collections.abc import Collection, Mapping

from sqlalchemy import select

from services.messaging.domain.message import MessageStatus
from services.messaging.store.bulk import one_of
from services.messaging.store.database import Database
from services.messaging.store.message_models import MessageRow


class SqlKnownMessages:
    """`KnownMessages` on SQLite and PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def statuses(self, provider: str, ids: Collection[str]) -> Mapping[str, MessageStatus]:
        """Where messages stand, by the provider's id; those not stored are left out."""
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(MessageRow.provider_message_id, MessageRow.status).where(
                    MessageRow.provider == provider,
                    one_of(connection, MessageRow.provider_message_id, ids),
                )
            )
            return {row.provider_message_id: MessageStatus(row.status) for row in rows}
