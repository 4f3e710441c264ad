"""What we did and the journal has still to learn: rows of two logs with `journaled` unset.

They are written in the transaction that does the thing, and marked once the journal has them: so
what is committed is journaled, if need be twice and under the same key. One process brings them
there for all.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Integer,
    Row,
    Select,
    Update,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.conversation import PausedBy
from services.messaging.domain.message import Author, EventKind, Media, MessageStatus, Template
from services.messaging.ports.acts import (
    Act,
    ActConversation,
    Attempted,
    Ended,
    Opened,
    Paused,
    Queued,
    Read,
    Resumed,
)
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import OutcomeKind
from services.messaging.store.bulk import among
from services.messaging.store.contact_models import ContactRow, ConversationRow, IdentityRow
from services.messaging.store.database import Database
from services.messaging.store.event_models import ConversationEventRow, MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outcomes import VOID
from services.messaging.store.public_ids import new_public_id
from services.messaging.store.work_models import LeaseRow

AnyRow = Row[*tuple[Any, ...]]

_LEASE: Final = "acts"


class SqlActLog:
    """`ActLog` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._holder = new_public_id()

    async def unjournaled(self, *, limit: int, lease_seconds: float) -> Sequence[Act]:
        """The oldest acts that aren't known to be in the journal, of a message in their order."""
        async with self._database.read(snapshot=True) as connection:
            acts = await _unjournaled(connection, limit)
            # First the look: nearly always there is nothing, and a lease is a write.
            if not acts:
                return ()
            lease = (await connection.execute(_lease())).first()
        return acts if await self._leased(lease, lease_seconds) else ()

    async def mark_journaled(self, acts: Sequence[Act]) -> None:
        """Note that acts are in the journal."""
        of_conversations = [act.key for act in acts if isinstance(act, _OF_CONVERSATIONS)]
        of_messages = [act.key for act in acts if not isinstance(act, _OF_CONVERSATIONS)]
        async with self._database.write() as connection:
            for table, keys in (
                (ConversationEventRow, of_conversations),
                (MessageEventRow, of_messages),
            ):
                if keys:
                    statement = _journaled(connection.dialect.name, table)
                    await connection.execute(statement, {"keys": keys})

    async def _leased(self, known: AnyRow | None, seconds: float) -> bool:
        """Whether this process is the one that brings acts to the journal.

        Args:
            known: The row of `_lease`, if there is one.
        """
        now = self._clock()
        until = now + timedelta(seconds=seconds)
        mine = LeaseRow.holder == self._holder
        if known is not None and known.lease_until > now:
            if known.holder != self._holder:
                return False
            if known.lease_until > now + timedelta(seconds=seconds / 2):
                return True
        async with self._database.write() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            taken = await connection.scalar(
                dialect.insert(LeaseRow)
                .values(name=_LEASE, holder=self._holder, lease_until=until)
                .on_conflict_do_update(
                    index_elements=[LeaseRow.name],
                    set_={"holder": self._holder, "lease_until": until},
                    where=or_(mine, LeaseRow.lease_until <= now),
                )
                .returning(LeaseRow.name)
            )
        return taken is not None


_OF_CONVERSATIONS = (Opened, Paused, Resumed, Read)


@functools.cache
def _journaled(dialect: str, table: type[ConversationEventRow | MessageEventRow]) -> Update:
    return update(table).where(among(dialect, table.event_key, "keys")).values(journaled=True)


@functools.cache
def _lease() -> Select[str, datetime]:
    return select(LeaseRow.holder, LeaseRow.lease_until).where(LeaseRow.name == _LEASE)


async def _unjournaled(connection: AsyncConnection, limit: int) -> list[Act]:
    rows = (await connection.execute(_conversation_events(), {"most": limit})).all()
    messages = (await connection.execute(_message_events(), {"most": limit - len(rows)})).all()
    queued = {row.conversation_id for row in messages if row.kind == EventKind.QUEUED.value}
    conversations = await _conversations(connection, queued | {row.conversation_id for row in rows})
    # The opening first: whatever follows finds its conversation there.
    return [
        *(
            # Under the id that it had then: it may have been merged into another since.
            _conversation_act(row, replace(conversations[row.conversation_id], id=row.public_id))
            for row in rows
        ),
        *(_message_act(row, conversations.get(row.conversation_id)) for row in messages),
    ]


@functools.cache
def _conversation_events() -> Select[*tuple[Any, ...]]:
    return (
        select(
            ConversationEventRow.conversation_id,
            ConversationEventRow.event_key,
            ConversationEventRow.kind,
            ConversationEventRow.public_id,
            ConversationEventRow.paused_by,
            ConversationEventRow.occurred_at,
            MessageRow.public_id.label("read_up_to"),
        )
        .outerjoin(MessageRow, MessageRow.id == ConversationEventRow.message_id)
        .where(~ConversationEventRow.journaled)
        .order_by(ConversationEventRow.id)
        .limit(bindparam("most", type_=Integer))
    )


@functools.cache
def _message_events() -> Select[*tuple[Any, ...]]:
    # Kept: two aliases cost more to make than the question to ask, and it is asked all day.
    answered, replied_to = aliased(MessageRow), aliased(MessageRow)
    return (
        select(
            MessageEventRow.event_key,
            MessageEventRow.kind,
            MessageEventRow.occurred_at,
            func.coalesce(MessageEventRow.provider, MessageRow.provider).label("provider"),
            MessageEventRow.status,
            MessageEventRow.error_code,
            MessageEventRow.error_message,
            MessageEventRow.payload,
            MessageRow.public_id,
            MessageRow.conversation_id,
            MessageRow.author,
            MessageRow.contact_address,
            MessageRow.body,
            MessageRow.media,
            MessageRow.template,
            MessageRow.request_id,
            MessageRow.request_hash,
            answered.public_id.label("answers_public_id"),
            replied_to.public_id.label("reply_to_public_id"),
        )
        .join(MessageRow, MessageRow.id == MessageEventRow.message_id)
        .outerjoin(answered, answered.id == MessageRow.answers_id)
        .outerjoin(replied_to, replied_to.id == MessageRow.reply_to_id)
        .where(~MessageEventRow.journaled)
        .order_by(MessageEventRow.id)
        .limit(bindparam("most", type_=Integer))
    )


async def _conversations(
    connection: AsyncConnection, row_ids: Collection[int]
) -> dict[int, ActConversation]:
    if not row_ids:
        return {}
    rows = await connection.execute(
        _of_conversations(connection.dialect.name), {"conversation_ids": list(row_ids)}
    )
    return {
        row.id: ActConversation(
            id=row.public_id,
            contact_id=row.contact_public_id,
            identity=Identity(IdentityKind(row.kind), row.value),
            contact_address=row.contact_address,
            own_address=row.own_address,
            opened_at=row.created_at,
        )
        for row in rows
    }


@functools.cache
def _of_conversations(dialect: str) -> Select[*tuple[Any, ...]]:
    asked = among(dialect, ConversationRow.id, "conversation_ids")
    # A name that proves who it is, if there is one, and of these the first.
    proves = case((IdentityRow.kind == IdentityKind.WHATSAPP_USERNAME.value, 1), else_=0)
    names = (
        select(
            IdentityRow.contact_id,
            IdentityRow.kind,
            IdentityRow.value,
            func.row_number()
            .over(partition_by=IdentityRow.contact_id, order_by=(proves, IdentityRow.id))
            .label("place"),
        )
        .where(IdentityRow.contact_id.in_(select(ConversationRow.contact_id).where(asked)))
        .subquery()
    )
    return (
        select(
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.contact_address,
            ConversationRow.own_address,
            ConversationRow.created_at,
            ContactRow.public_id.label("contact_public_id"),
            names.c.kind,
            names.c.value,
        )
        .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
        .join(names, (names.c.contact_id == ContactRow.id) & (names.c.place == 1))
        .where(asked)
    )


def _conversation_act(row: AnyRow, conversation: ActConversation) -> Act:
    key, at = row.event_key, row.occurred_at
    match row.kind:
        case "opened":
            return Opened(key, at, conversation)
        case "paused":
            return Paused(key, at, conversation, PausedBy(row.paused_by))
        case "resumed":
            return Resumed(key, at, conversation)
        case _:
            return Read(key, at, conversation, row.read_up_to)


def _message_act(row: AnyRow, conversation: ActConversation | None) -> Act:
    key, at, payload = row.event_key, row.occurred_at, row.payload
    if row.kind == EventKind.QUEUED.value and conversation is not None:
        return Queued(
            key=key,
            at=at,
            conversation=conversation,
            message_id=row.public_id,
            author=Author(row.author),
            contact_address=row.contact_address,
            body=row.body,
            provider=row.provider,
            media=tuple(Media(one["url"], one["content_type"]) for one in row.media),
            template=Template(**row.template) if row.template else None,
            reply_to_message_id=row.reply_to_public_id,
            answers_message_id=row.answers_public_id,
            request_id=row.request_id,
            request_hash=row.request_hash,
        )
    if row.kind == EventKind.ATTEMPT.value:
        return Attempted(key, at, row.public_id, payload["attempt"], row.provider)
    return Ended(
        key=key,
        at=at,
        message_id=row.public_id,
        attempt=payload["attempt"],
        provider=row.provider,
        outcome=OutcomeKind(payload["outcome"]),
        provider_message_id=payload.get("provider_message_id"),
        status=MessageStatus(row.status) if row.status else None,
        error_code=row.error_code,
        error_message=row.error_message,
        void=payload.get(VOID, False),
    )
