"""Storing what arrived, a batch in one transaction, so that order and repetition don't matter."""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import UnavailableError
from services.messaging.domain.contact import SamePerson
from services.messaging.domain.message import StatusReport
from services.messaging.ports.receiving import IngestResult, ReceivedMessage
from services.messaging.store.contacts import SplitContactsError, resolve_contacts
from services.messaging.store.database import Database
from services.messaging.store.merging import merge_contacts
from services.messaging.store.parked import apply_parked, drop_parked
from services.messaging.store.receiving import store_messages
from services.messaging.store.reports import Applied, apply_reports, park

T = TypeVar("T")

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

        async def store(connection: AsyncConnection) -> tuple[int, Applied]:
            stored = await store_messages(connection, messages)
            applied = await apply_reports(connection, reports)
            await park(connection, applied.unmatched)
            return stored, applied

        stored, applied = await self._merging_where_needed(store)
        parked = len(applied.unmatched)
        return IngestResult(
            stored=stored,
            applied=len({report.event_key for report in reports}) - parked,
            parked=parked,
            unsettled=applied.made_known.union(
                report.provider_message_id for report in applied.unmatched
            ),
        )

    async def _merging_where_needed(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do work in a transaction; merge contacts that turn out to be one, and do it again."""
        for _ in range(_MERGES_AT_MOST):
            with _conflicts_pass():
                try:
                    async with self._database.write() as connection:
                        return await work(connection)
                except SplitContactsError as split:
                    for contact_ids in split.groups:
                        async with self._database.write() as connection:
                            await merge_contacts(connection, contact_ids)
        raise UnavailableError("contacts go on turning out to be one person, try again")

    async def apply_parked(self, provider_message_ids: Collection[str] | None = None) -> int:
        """Apply parked reports whose message has become known; returns how many."""
        with _conflicts_pass():
            return await apply_parked(self._database, provider_message_ids)

    async def drop_parked(self, before: datetime) -> int:
        """Forget parked reports from before a time; returns how many."""
        return await drop_parked(self._database, before)


@contextlib.contextmanager
def _conflicts_pass() -> Iterator[None]:
    """Every expected conflict is handled, so at any other another transaction was in the way."""
    try:
        yield
    except IntegrityError as error:
        raise UnavailableError("two transactions met, try again") from error
