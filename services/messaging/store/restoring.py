"""Putting acts of the journal back into a database, so that order and repetition don't matter.

A message that comes back is never due. The journal may lack its end, because what was done last was
lost with the old database: so its outcome is unknown, and any provider may have sent it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.ports.acts import (
    Act,
    ActConversation,
    Attempted,
    Ended,
    Opened,
    Paused,
    Queued,
    Read,
    RestoreResult,
    Resumed,
)
from services.messaging.ports.clock import Clock
from services.messaging.store.bulk import insert_many
from services.messaging.store.contact_models import ConversationAliasRow, ConversationRow
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.database import Database
from services.messaging.store.event_models import ConversationEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import ConversationKey, Party
from services.messaging.store.pausing import PAUSED, RESUMED, fold_pauses
from services.messaging.store.reading_marks import READ, set_mark
from services.messaging.store.restoring_messages import HELD, restore_messages
from services.messaging.store.restoring_sends import restore_sends
from services.messaging.store.rows import insert_ignoring
from services.messaging.store.unsettled import UNKNOWN
from services.messaging.store.work_models import OutboxRow


class SqlActRestorer:
    """`ActRestorer` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def restore(self, acts: Sequence[Act]) -> RestoreResult:
        """Store acts that aren't there yet, and what follows from them."""
        opened = [act for act in acts if isinstance(act, Opened)]
        queued = [act for act in acts if isinstance(act, Queued)]
        pauses = [act for act in acts if isinstance(act, Paused | Resumed)]
        of_sending = [act for act in acts if isinstance(act, Attempted | Ended)]
        reads = [act for act in acts if isinstance(act, Read)]
        now = self._clock()
        new = 0
        orphans: list[Act] = []
        try:
            async with self._database.write() as connection:
                conversations = await _conversations(connection, [*opened, *queued, *pauses], now)
                new += await _restore_openings(connection, opened, conversations)
                new += await restore_messages(connection, queued, conversations, now)
                new += await _restore_pauses(connection, pauses, conversations)
            if of_sending:
                async with self._database.write() as connection:
                    added, unknown = await restore_sends(connection, of_sending, now)
                new += added
                orphans += unknown
            for read in reads:
                async with self._database.write() as connection:
                    restored = await _restore_read(connection, read, now)
                new += bool(restored)
                orphans += [read] if restored is None else []
        except IntegrityError as error:
            # Every expected conflict is handled, so another transaction was in the way.
            raise UnavailableError("two transactions met, try again") from error
        return RestoreResult(new, orphans)

    async def doubt(self) -> None:
        """Take no unsettled send for unsent: the database is a backup, and time has passed."""
        now = self._clock()
        queued_at = (
            select(MessageRow.created_at)
            .where(MessageRow.id == OutboxRow.message_id)
            .scalar_subquery()
        )
        async with self._database.write() as connection:
            await connection.execute(
                update(OutboxRow).values(
                    state=UNKNOWN,
                    pinned=True,
                    restored=True,
                    first_attempt_at=func.coalesce(OutboxRow.first_attempt_at, queued_at),
                    last_attempt_at=now,
                    due_at=now + HELD,
                    lease_until=None,
                )
            )

    async def release(self) -> int:
        """Have the outcome of restored messages looked up whose end wasn't restored; how many."""
        now = self._clock()
        async with self._database.write() as connection:
            released = await connection.execute(
                update(OutboxRow)
                .where(OutboxRow.restored, OutboxRow.state == UNKNOWN)
                # The grace period begins now: what was sent last may not be listed yet.
                .values(due_at=now, last_attempt_at=now)
                .returning(OutboxRow.message_id)
            )
            return len(released.all())


async def _conversations(
    connection: AsyncConnection, acts: Sequence[Opened | Queued | Paused | Resumed], now: datetime
) -> dict[str, ConversationKey]:
    """The conversations of acts by the act's key, begun again where there is none."""
    parties = [_party(act.conversation) for act in acts]
    found = await resolve_conversations(connection, parties, now) if parties else []
    return {act.key: key for act, key in zip(acts, found, strict=True)}


def _party(conversation: ActConversation) -> Party:
    return Party(
        (conversation.identity,),
        conversation.contact_address,
        conversation.own_address,
        conversation.opened_at,
        contact_public_id=conversation.contact_id,
        conversation_public_id=conversation.id,
    )


async def _restore_openings(
    connection: AsyncConnection,
    opened: Sequence[Opened],
    conversations: Mapping[str, ConversationKey],
) -> int:
    """Let the ids of conversations lead somewhere, that have others here."""
    new = 0
    for act in opened:
        key = conversations[act.key]
        if key.public_id == act.conversation.id:
            continue
        known = await connection.scalar(
            select(ConversationRow.id).where(ConversationRow.public_id == act.conversation.id)
        )
        if known is None:
            added = await connection.execute(
                insert_ignoring(connection, ConversationAliasRow).returning(
                    ConversationAliasRow.public_id
                ),
                [{"public_id": act.conversation.id, "conversation_id": key.id}],
            )
            new += len(added.all())
    return new


async def _restore_pauses(
    connection: AsyncConnection,
    acts: Sequence[Paused | Resumed],
    conversations: Mapping[str, ConversationKey],
) -> int:
    inserted = await insert_many(
        connection,
        ConversationEventRow,
        [
            {
                "conversation_id": conversations[act.key].id,
                "event_key": act.key,
                "kind": PAUSED if isinstance(act, Paused) else RESUMED,
                "public_id": act.conversation.id,
                "paused_by": act.by.value if isinstance(act, Paused) else None,
                "occurred_at": act.at,
                "journaled": True,
            }
            for act in acts
        ],
        ConversationEventRow.conversation_id,
    )
    if inserted:
        await fold_pauses(connection, {row.conversation_id for row in inserted})
    return len(inserted)


async def _restore_read(connection: AsyncConnection, act: Read, now: datetime) -> bool | None:
    """Whether an act was new; None when its message isn't there."""
    known = await connection.scalar(
        select(ConversationEventRow.id).where(ConversationEventRow.event_key == act.key)
    )
    if known is not None:
        return False
    [key] = await resolve_conversations(connection, [_party(act.conversation)], now)
    try:
        await set_mark(connection, key.id, act.message_id)
    except InvalidInputError:
        return None
    row_id = await connection.scalar(
        select(MessageRow.id).where(MessageRow.public_id == act.message_id)
    )
    await connection.execute(
        insert(ConversationEventRow).values(
            conversation_id=key.id,
            event_key=act.key,
            kind=READ,
            public_id=act.conversation.id,
            message_id=row_id,
            occurred_at=act.at,
            journaled=True,
        )
    )
    return True
