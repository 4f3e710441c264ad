"""The outbox: messages that are stored and whose sending isn't settled.

A row is `due` until it is claimed, then `sending`, then gone, `due` again or `unknown`. Each
change is committed before its effect outside: a process may die at any point, and what it leaves
behind says what may have happened.

Only the oldest unsettled message of a conversation is claimed. `store.queueing` makes sure that
no older one can appear while a younger one is being sent. The others are `waiting`, so that a
claim needn't look at each of them; `store.outcomes` releases the next when one is settled.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from services.messaging.domain.message import Author, Message
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import (
    ALL_OPEN,
    ClaimedSend,
    NewMessage,
    Routes,
    SendOutcome,
)
from services.messaging.store.batching import Batching
from services.messaging.store.claiming import claim_due, claim_unknown
from services.messaging.store.database import Database
from services.messaging.store.enqueueing import (
    MergedMeanwhileError,
    NothingStoredError,
    Stored,
    enqueue_all,
)
from services.messaging.store.message_models import MessageRow
from services.messaging.store.queueing import requested_before
from services.messaging.store.settling import settle_attempt
from services.messaging.store.sweeping import make_expired_unknown, make_stranded_due
from services.messaging.usecases.policy import SendPolicy

_MOST_ENQUEUED: Final = 128
_MERGES_IN_A_ROW: Final = 5


class SqlOutboxStore:
    """`OutboxStore` on SQLite and PostgreSQL."""

    def __init__(self, database: Database, clock: Clock, policy: SendPolicy | None = None) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy or SendPolicy()
        self._enqueueing = Batching(self._enqueue, most=_MOST_ENQUEUED)

    async def enqueue(self, message: NewMessage) -> tuple[Message, bool]:
        """Store a message and its place in the outbox, together with others of this moment."""
        for _ in range(_MERGES_IN_A_ROW):
            try:
                return await self._enqueue_once(message)
            except MergedMeanwhileError:
                continue
        return await self._enqueue_once(message)

    async def _enqueue_once(self, message: NewMessage) -> Stored:
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

    async def stored_before(self, message: NewMessage) -> Message | None:
        """The message stored first for this request; None: it is new, or has no `request_id`."""
        if message.request_id is None:
            return None
        async with self._database.read() as connection:
            [found] = await requested_before(connection, [message])
        if isinstance(found, Exception):
            raise found
        return found

    async def claim(
        self, *, limit: int, lease: timedelta, routes: Routes = ALL_OPEN
    ) -> Sequence[ClaimedSend]:
        """Take messages that are due, the oldest of each conversation, and record the attempt."""
        now = self._clock()
        async with self._database.write() as connection:
            return await claim_due(
                connection, limit=limit, lease=lease, routes=routes, policy=self._policy, now=now
            )

    async def settle(
        self,
        message: ClaimedSend,
        outcome: SendOutcome,
        retry_at: datetime,
        *,
        move_to: str | None = None,
    ) -> bool:
        """Record how an attempt ended; returns whether something may be due at once."""
        now = self._clock()
        async with self._database.write() as connection:
            return await settle_attempt(
                connection,
                message,
                outcome,
                retry_at,
                move_to=move_to,
                policy=self._policy,
                now=now,
            )

    async def release_stranded(self) -> int:
        """Make due what waits behind nothing any more; returns how many."""
        return await make_stranded_due(self._database)

    async def expire_leases(self) -> int:
        """Make UNKNOWN what was being sent by a process that is gone; returns how many."""
        now = self._clock()
        async with self._database.write() as connection:
            return await make_expired_unknown(connection, now)

    async def unknown(self, *, limit: int, lease: timedelta) -> Sequence[ClaimedSend]:
        """Take sends whose outcome is unknown and whose time to look has come."""
        now = self._clock()
        async with self._database.write() as connection:
            return await claim_unknown(connection, limit=limit, lease=lease, now=now)

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
