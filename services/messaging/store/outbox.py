"""The outbox: messages that are stored and whose sending isn't settled.

A row is `due` until it is claimed, then `sending`, then gone, `due` again or `unknown`. Each
change is committed before its effect outside: a process may die at any point, and what it leaves
behind says what may have happened.

Only the oldest unsettled message of a conversation is claimed. `store.queueing` makes sure that
no older one can appear while a younger one is being sent. The others are `waiting`, so that a
claim needn't look at each of them; `store.outcomes` releases the next when one is settled.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.messaging.domain.message import (
    Author,
    Message,
    MessageStatus,
    Template,
    TimeSource,
)
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import (
    ALL_OPEN,
    ClaimedSend,
    NewMessage,
    OutcomeKind,
    Routes,
    SendOutcome,
)
from services.messaging.store.batching import Batching
from services.messaging.store.database import Database
from services.messaging.store.enqueueing import NothingStoredError, Stored, enqueue_all
from services.messaging.store.models import (
    ContactRow,
    ConversationRow,
    MessageEventRow,
    MessageRow,
    OutboxRow,
)
from services.messaging.store.outcomes import accept, move, record_outcome, reject
from services.messaging.store.rows import (
    insert_ignoring,
)
from services.messaging.usecases.policy import OPTED_OUT, OUTSIDE_WINDOW, RecipientFacts, SendPolicy

DUE: Final = "due"
SENDING: Final = "sending"
UNKNOWN: Final = "unknown"
WAITING: Final = "waiting"

_MOST_ENQUEUED: Final = 128

_TOO_LATE_FOR: Final = {
    OPTED_OUT: "the contact opted out first",
    OUTSIDE_WINDOW: "it waited until WhatsApp's 24-hour window had closed",
}
_LEASE_EXPIRED: Final = SendOutcome(
    OutcomeKind.UNKNOWN,
    error_code="lease_expired",
    error_message="the process that was sending it is gone",
)


class SqlOutboxStore:
    """`OutboxStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock, policy: SendPolicy | None = None) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy or SendPolicy()
        self._enqueueing = Batching(self._enqueue, most=_MOST_ENQUEUED)

    async def enqueue(self, message: NewMessage) -> tuple[Message, bool]:
        """Store a message and its place in the outbox, together with others of this moment."""
        if message.author is not Author.PERSON:
            return await self._enqueueing(message)
        [result] = await self._enqueue([message])
        if isinstance(result, Exception):
            raise result
        return result

    async def _enqueue(self, messages: Sequence[NewMessage]) -> Sequence[Stored | Exception]:
        try:
            async with self._database.write() as connection:
                return await enqueue_all(connection, messages, self._policy, self._clock())
        except NothingStoredError as nothing:
            return nothing.errors

    async def claim(
        self, *, limit: int, lease: timedelta, routes: Routes = ALL_OPEN
    ) -> Sequence[ClaimedSend]:
        """Take messages that are due, the oldest of each conversation, and record the attempt."""
        now = self._clock()
        due = (
            _unsettled()
            .where(
                OutboxRow.state == DUE,
                OutboxRow.due_at <= now,
                # Both hold, but where a merge of contacts has brought conversations together.
                OutboxRow.message_id == _oldest_of_its_conversation(),
                OutboxRow.conversation_id.not_in(_busy_conversations()),
                *_on(routes),
            )
            .limit(limit)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(due)).all()
            rows = [row for row in rows if not await self._refuse_forbidden(connection, row, now)]
            if not rows:
                return ()
            ids = [row.message_id for row in rows]
            providers = {
                row.message_id: routes.instead.get(row.provider, row.provider) for row in rows
            }
            for provider in sorted(set(routes.instead.values())):
                moved = [
                    row.message_id
                    for row in rows
                    if providers[row.message_id] == provider != row.provider
                ]
                await move(connection, moved, provider)
            await connection.execute(
                update(OutboxRow)
                .where(OutboxRow.message_id.in_(ids))
                .values(
                    state=SENDING,
                    attempts=OutboxRow.attempts + 1,
                    lease_until=now + lease,
                    first_attempt_at=func.coalesce(OutboxRow.first_attempt_at, now),
                    last_attempt_at=now,
                )
            )
            await connection.execute(
                update(MessageRow)
                .where(MessageRow.id.in_(ids), MessageRow.status == MessageStatus.QUEUED.value)
                .values(status=MessageStatus.SENDING.value)
            )
            await connection.execute(
                insert_ignoring(connection, MessageEventRow),
                [
                    {
                        "message_id": row.message_id,
                        "event_key": f"attempt:{row.public_id}:{row.attempts + 1}",
                        "kind": "attempt",
                        "status": MessageStatus.SENDING.value,
                        "provider": providers[row.message_id],
                        "occurred_at": now,
                        "source": TimeSource.RECEIVED.value,
                        "payload": {"attempt": row.attempts + 1},
                    }
                    for row in rows
                ],
            )
            return [
                _claimed(
                    row,
                    provider=providers[row.message_id],
                    attempt=row.attempts + 1,
                    first_attempt_at=row.first_attempt_at or now,
                    last_attempt_at=now,
                    lease_until=now + lease,
                )
                for row in rows
            ]

    async def _refuse_forbidden(
        self, connection: AsyncConnection, row: Row[*tuple[Any, ...]], now: datetime
    ) -> bool:
        """Fail a message that a rule has come to forbid since it was stored."""
        refusal = self._policy.refusal(
            RecipientFacts(row.opted_out_at, row.last_inbound_at),
            is_template=row.template is not None,
            now=now,
        )
        if refusal is None:
            return False
        await _fail(connection, row, refusal.rule, now)
        return True

    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> None:
        """Record how an attempt ended. `retry_at` is used by RETRY and UNKNOWN."""
        now = self._clock()
        async with self._database.write() as connection:
            row_id = await connection.scalar(
                select(MessageRow.id).where(MessageRow.public_id == message.message_id)
            )
            if row_id is None:
                raise LookupError("a claimed message is not in the database")
            unsettled = (
                await connection.execute(
                    select(OutboxRow.attempts, OutboxRow.lease_until, OutboxRow.pinned)
                    .where(OutboxRow.message_id == row_id)
                    .with_for_update()
                )
            ).first()
            await record_outcome(connection, row_id, message, outcome, now)
            if outcome.kind is OutcomeKind.ACCEPTED:
                await accept(connection, row_id, message, outcome, now)
                return
            # Without a row the provider's own report has settled the message meanwhile.
            if unsettled is None or unsettled.attempts != message.attempt:
                return
            place = OutboxRow.message_id == row_id
            if outcome.kind is OutcomeKind.UNKNOWN:
                # Counts even after the lease: it may only ever make us more careful.
                await connection.execute(
                    update(OutboxRow)
                    .where(place)
                    .values(state=UNKNOWN, pinned=True, due_at=retry_at, lease_until=None)
                )
            elif unsettled.lease_until != message.lease_until:
                return
            elif outcome.kind is OutcomeKind.RETRY:
                if move_to is not None and not unsettled.pinned:
                    await move(connection, [row_id], move_to)
                    retry_at = now
                await connection.execute(
                    update(OutboxRow)
                    .where(place)
                    .values(state=DUE, due_at=retry_at, lease_until=None)
                )
            else:
                await reject(connection, row_id, message, outcome, now)

    async def release_stranded(self) -> int:
        """Make due what waits behind nothing any more; returns how many."""
        stranded = select(OutboxRow.message_id).where(
            OutboxRow.state == WAITING,
            OutboxRow.message_id == _oldest_of_its_conversation(),
        )
        async with self._database.read() as connection:
            ids = list(await connection.scalars(stranded))
        if not ids:
            return 0
        async with self._database.write() as connection:
            await connection.execute(
                update(OutboxRow)
                .where(OutboxRow.message_id.in_(ids), OutboxRow.state == WAITING)
                .values(state=DUE)
            )
        return len(ids)

    async def expire_leases(self) -> int:
        """Make UNKNOWN what was being sent by a process that is gone; returns how many."""
        now = self._clock()
        async with self._database.write() as connection:
            rows = (
                await connection.execute(
                    _unsettled().where(OutboxRow.state == SENDING, OutboxRow.lease_until <= now)
                )
            ).all()
            if not rows:
                return 0
            await connection.execute(
                update(OutboxRow)
                .where(OutboxRow.message_id.in_([row.message_id for row in rows]))
                .values(state=UNKNOWN, pinned=True, due_at=now, lease_until=None)
            )
            for row in rows:
                message = _claimed(
                    row,
                    attempt=row.attempts,
                    first_attempt_at=row.first_attempt_at,
                    last_attempt_at=row.last_attempt_at,
                    lease_until=now,
                )
                await record_outcome(connection, row.message_id, message, _LEASE_EXPIRED, now)
            return len(rows)

    async def unknown(self, *, limit: int, lease: timedelta) -> Sequence[ClaimedSend]:
        """Take sends whose outcome is unknown and whose time to look has come."""
        now = self._clock()
        waiting = (
            _unsettled()
            .where(
                OutboxRow.state == UNKNOWN,
                OutboxRow.due_at <= now,
                or_(OutboxRow.lease_until.is_(None), OutboxRow.lease_until <= now),
            )
            .limit(limit)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(waiting)).all()
            if not rows:
                return ()
            await connection.execute(
                update(OutboxRow)
                .where(OutboxRow.message_id.in_([row.message_id for row in rows]))
                .values(lease_until=now + lease)
            )
            return [
                _claimed(
                    row,
                    attempt=row.attempts,
                    first_attempt_at=row.first_attempt_at,
                    last_attempt_at=row.last_attempt_at,
                    lease_until=now + lease,
                )
                for row in rows
            ]

    async def known_provider_ids(self, provider: str, ids: Sequence[str]) -> frozenset[str]:
        """Those of the given provider ids that belong to a message of ours."""
        if not ids:
            return frozenset()
        async with self._database.read() as connection:
            found = await connection.scalars(
                select(MessageRow.provider_message_id).where(
                    MessageRow.provider == provider, MessageRow.provider_message_id.in_(ids)
                )
            )
            return frozenset(one for one in found if one is not None)


async def cancel_automatic(
    connection: AsyncConnection, contact_ids: Collection[int], now: datetime
) -> None:
    """Fail what the assistant has waiting for contacts that opted out, in the caller's transaction.

    What is being sent at this moment is passed over: it can't be called back.
    """
    rows = await connection.execute(
        _unsettled().where(
            OutboxRow.state.in_((DUE, WAITING)),
            MessageRow.author == Author.ASSISTANT.value,
            ContactRow.id.in_(contact_ids),
        )
    )
    for row in rows.all():
        await _fail(connection, row, OPTED_OUT, now)


# Both as scalars and lists, not as "none exists", for which PostgreSQL may read the whole table.


def _oldest_of_its_conversation() -> ScalarSelect[int]:
    other = aliased(OutboxRow)
    return (
        select(func.min(other.message_id))
        .where(other.conversation_id == OutboxRow.conversation_id)
        .correlate(OutboxRow)
        .scalar_subquery()
    )


def _busy_conversations() -> Select[int]:
    other = aliased(OutboxRow)
    return select(other.conversation_id).where(other.state.in_((SENDING, UNKNOWN)))


def _on(routes: Routes) -> list[ColumnElement[bool]]:
    """What of the outbox may be claimed by these routes."""
    if not routes.closed:
        return []
    goes_elsewhere = and_(MessageRow.provider.in_(routes.instead), OutboxRow.pinned.is_(False))
    return [or_(MessageRow.provider.not_in(routes.closed), goes_elsewhere)]


def _unsettled() -> Select[*tuple[Any, ...]]:
    """Unsettled sends, locked; those that another process has locked are passed over."""
    return (
        select(
            OutboxRow.message_id,
            OutboxRow.attempts,
            OutboxRow.first_attempt_at,
            OutboxRow.last_attempt_at,
            OutboxRow.pinned,
            MessageRow.public_id,
            MessageRow.provider,
            MessageRow.contact_address,
            MessageRow.own_address,
            MessageRow.body,
            MessageRow.media,
            MessageRow.template,
            ConversationRow.last_inbound_at,
            ContactRow.opted_out_at,
        )
        .join(MessageRow, MessageRow.id == OutboxRow.message_id)
        .join(ConversationRow, ConversationRow.id == OutboxRow.conversation_id)
        .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
        .order_by(OutboxRow.due_at, OutboxRow.message_id)
        .with_for_update(skip_locked=True, key_share=True, of=[OutboxRow, MessageRow])
    )


def _claimed(row: Row[*tuple[Any, ...]], provider: str | None = None, **values: Any) -> ClaimedSend:
    return ClaimedSend(
        message_id=row.public_id,
        provider=provider or row.provider,
        contact_address=row.contact_address,
        own_address=row.own_address,
        body=row.body,
        media_urls=tuple(one["url"] for one in row.media),
        template=Template(**row.template) if row.template else None,
        **values,
    )


async def _fail(
    connection: AsyncConnection, row: Row[*tuple[Any, ...]], rule: str, now: datetime
) -> None:
    """Fail a message that a rule has come to forbid after it was stored."""
    message = _claimed(
        row, attempt=row.attempts, first_attempt_at=now, last_attempt_at=now, lease_until=now
    )
    outcome = SendOutcome(
        OutcomeKind.REJECTED, error_code=rule, error_message=f"not sent: {_TOO_LATE_FOR[rule]}"
    )
    await record_outcome(connection, row.message_id, message, outcome, now)
    await reject(connection, row.message_id, message, outcome, now)
