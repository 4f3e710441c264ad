"""Storing what arrived, a batch in one transaction, so that order and repetition don't matter."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, and_, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import UnavailableError
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import (
    Author,
    Direction,
    Media,
    MessageStatus,
    StatusReport,
    TimeSource,
)
from services.messaging.ports.receiving import IngestResult, ReceivedMessage
from services.messaging.store.bulk import insert_many, update_many
from services.messaging.store.contacts import (
    Party,
    SplitContactsError,
    received_id,
    resolve_contacts,
    resolve_conversations,
)
from services.messaging.store.database import Database
from services.messaging.store.followup import StoredMessage, follow_up
from services.messaging.store.forbidding import cancel_automatic
from services.messaging.store.merging import merge_contacts
from services.messaging.store.models import (
    MediaFetchRow,
    MessageEventRow,
    MessageRow,
    ParkedStatusRow,
)
from services.messaging.store.reports import apply_reports, park, parked_report

T = TypeVar("T")

_PARKED_AT_ONCE = 500
_MERGES_AT_MOST = 5
"""One is enough, unless others find new names of the same people at that very moment."""


class SqlIngestStore:
    """`IngestStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def join(self, people: Sequence[SamePerson]) -> None:
        """Make names that are one person's one contact's; contacts that bear them are merged."""

        async def resolve(connection: AsyncConnection) -> None:
            first = min(one.known_at for one in people)
            await resolve_contacts(connection, [one.identities for one in people], first)

        await self._merging_where_needed(resolve)

    async def ingest(
        self, messages: Sequence[ReceivedMessage], reports: Sequence[StatusReport]
    ) -> IngestResult:
        """Store a batch. What is known already is left as it is."""
        if not messages and not reports:
            return IngestResult(stored=0, applied=0, parked=0)

        async def store(connection: AsyncConnection) -> tuple[int, int]:
            stored = await _store_messages(connection, messages)
            unmatched = await apply_reports(connection, reports)
            await park(connection, unmatched)
            return stored, len(unmatched)

        stored, parked = await self._merging_where_needed(store)
        distinct = len({report.event_key for report in reports})
        return IngestResult(stored=stored, applied=distinct - parked, parked=parked)

    async def _merging_where_needed(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do work in a transaction; merge contacts that turn out to be one, and do it again."""
        for _ in range(_MERGES_AT_MOST):
            try:
                async with self._database.write() as connection:
                    return await work(connection)
            except SplitContactsError as split:
                for contact_ids in split.groups:
                    async with self._database.write() as connection:
                        await merge_contacts(connection, contact_ids)
            except IntegrityError as error:
                # Every expected conflict is handled, so another transaction was in the way.
                raise UnavailableError("two transactions met, try again") from error
        raise UnavailableError("contacts go on turning out to be one person, try again")

    async def apply_parked(self, provider_message_ids: Collection[str] | None = None) -> int:
        """Apply parked reports whose message has become known; returns how many."""
        total = 0
        if provider_message_ids is None:
            # First: what they settle makes more messages known by the provider's id.
            total = await self._apply(_hinted())
        return total + await self._apply(_applicable(provider_message_ids))

    async def _apply(self, query: Select[*tuple[Any, ...]]) -> int:
        total = 0
        while True:
            async with self._database.read() as connection:
                # The common answer is "nothing", and it should not take SQLite's write lock.
                if (await connection.execute(query.limit(1))).first() is None:
                    return total
            async with self._database.write() as connection:
                rows = (
                    await connection.execute(
                        query.with_for_update(skip_locked=True, of=ParkedStatusRow)
                    )
                ).all()
                unmatched = await apply_reports(connection, map(parked_report, rows))
                left = {report.event_key for report in unmatched}
                applied = [row.id for row in rows if row.event_key not in left]
                await connection.execute(
                    delete(ParkedStatusRow).where(ParkedStatusRow.id.in_(applied))
                )
            total += len(applied)
            if len(rows) < _PARKED_AT_ONCE or not applied:
                return total

    async def drop_parked(self, before: datetime) -> int:
        """Forget parked reports from before a time; returns how many."""
        old = ParkedStatusRow.occurred_at < before
        async with self._database.read() as connection:
            if await connection.scalar(select(ParkedStatusRow.id).where(old).limit(1)) is None:
                return 0
        async with self._database.write() as connection:
            dropped = await connection.execute(
                delete(ParkedStatusRow).where(old).returning(ParkedStatusRow.id)
            )
            return len(dropped.all())


def _applicable(provider_message_ids: Collection[str] | None) -> Select[*tuple[Any, ...]]:
    query = (
        select(*ParkedStatusRow.__table__.columns)
        .join(
            MessageRow,
            and_(
                MessageRow.provider == ParkedStatusRow.provider,
                MessageRow.provider_message_id == ParkedStatusRow.provider_message_id,
            ),
        )
        .order_by(ParkedStatusRow.id)
        .limit(_PARKED_AT_ONCE)
    )
    if provider_message_ids is not None:
        query = query.where(ParkedStatusRow.provider_message_id.in_(provider_message_ids))
    return query


def _hinted() -> Select[*tuple[Any, ...]]:
    """Reports that name a message of ours which has no provider's id yet."""
    return (
        select(*ParkedStatusRow.__table__.columns)
        .join(
            MessageRow,
            and_(
                MessageRow.public_id == ParkedStatusRow.message_id,
                MessageRow.provider == ParkedStatusRow.provider,
                MessageRow.direction == Direction.OUTBOUND.value,
                MessageRow.provider_message_id.is_(None),
            ),
        )
        .order_by(ParkedStatusRow.id)
        .limit(_PARKED_AT_ONCE)
    )


async def _store_messages(connection: AsyncConnection, received: Iterable[ReceivedMessage]) -> int:
    # Each once, and in the same order in every transaction: two of them with the same messages
    # then wait for each other instead of both.
    distinct = {(one.message.provider, one.message.provider_message_id): one for one in received}
    ordered = sorted(distinct.items())
    if not ordered:
        return 0
    messages = [one.message for _, one in ordered]
    conversations = await resolve_conversations(
        connection,
        [
            Party(one.identities, one.contact_address, one.own_address, one.received_at)
            for one in messages
        ],
        min(one.received_at for one in messages),
    )
    inserted = await insert_many(
        connection,
        MessageRow,
        [
            {
                "public_id": received_id(message.provider, message.provider_message_id),
                "conversation_id": conversation.id,
                **_from(message),
                "contact_address": message.contact_address,
                "own_address": message.own_address,
                "body": message.body,
                "media": [_file(one) for one in message.media],
                "provider": message.provider,
                "provider_message_id": message.provider_message_id,
                "created_at": message.received_at,
                "traceparent": message.traceparent or None,
            }
            for message, conversation in zip(messages, conversations, strict=True)
        ],
        MessageRow.id,
        MessageRow.provider,
        MessageRow.provider_message_id,
    )
    row_ids = {(row.provider, row.provider_message_id): row.id for row in inserted}
    new = [
        StoredMessage(row_ids[key], conversation, one)
        for (key, one), conversation in zip(ordered, conversations, strict=True)
        if key in row_ids
    ]
    if new:
        await _add_events(connection, new)
        await _note_replies(connection, new)
        await _queue_media(connection, new)
        opted_out = await follow_up(connection, new)
        if opted_out:
            await cancel_automatic(connection, opted_out, max(one.at for one in new))
    return len(new)


async def _add_events(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    await insert_many(
        connection,
        MessageEventRow,
        [
            {
                "message_id": one.id,
                "event_key": one.received.message.event_key,
                "kind": "received",
                "status": _from(one.received.message)["status"],
                "provider": one.received.message.provider,
                "origin": one.received.message.origin or None,
                "occurred_at": one.at,
                "source": TimeSource.RECEIVED.value,
                "payload": dict(one.received.message.payload),
            }
            for one in new
        ],
    )


async def _queue_media(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    await insert_many(
        connection,
        MediaFetchRow,
        [
            {"message_id": one.id, "attempts": 0, "due_at": one.at}
            for one in new
            if any(file.problem is None for file in one.received.message.media)
        ],
    )


def _from(message: InboundMessage) -> dict[str, Any]:
    """What the columns say of who wrote a message, all of them for every message."""
    if not message.from_us:
        return {
            "direction": Direction.INBOUND.value,
            "author": Author.CONTACT.value,
            "status": MessageStatus.RECEIVED.value,
            "sent_at": None,
            "sent_source": None,
        }
    return {
        "direction": Direction.OUTBOUND.value,
        "author": Author.PERSON.value,
        "status": MessageStatus.SENT.value,
        "sent_at": message.received_at,
        "sent_source": TimeSource.PROVIDER.value,
    }


def _file(media: Media) -> dict[str, str]:
    file = {"url": media.url, "content_type": media.content_type}
    return file if media.problem is None else {**file, "problem": media.problem}


async def _note_replies(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    """Link messages to those that they reply to, as far as these are in the conversation."""
    replies = {
        (message.provider, message.reply_to, one.conversation.id): one.id
        for one in new
        if (message := one.received.message).reply_to is not None
    }
    if not replies:
        return
    rows = await connection.execute(
        select(
            MessageRow.id,
            MessageRow.provider,
            MessageRow.provider_message_id,
            MessageRow.conversation_id,
        ).where(
            or_(
                *(
                    and_(MessageRow.provider == provider, MessageRow.provider_message_id == id_)
                    for provider, id_, _ in replies
                )
            )
        )
    )
    known = {(row.provider, row.provider_message_id, row.conversation_id): row.id for row in rows}
    await update_many(
        connection,
        MessageRow,
        {row_id: {"reply_to_id": known[key]} for key, row_id in replies.items() if key in known},
    )
