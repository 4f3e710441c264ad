"""The consumer against the database's own speed.

`python -m benchmarks.consumer` prints, for SQLite and PostgreSQL, events stored per second by the
consumer (fetched from a real NATS, decoded, contacts resolved, deduplicated, with an event row
for each message, acknowledged) and the same messages by one multi-row insert per batch and
nothing else, both in one run, and their ratio. Afterwards every event must stand in the database.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select

from benchmarks import results
from benchmarks.results import Result, say
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import INGEST_STREAM, connect, ensure_streams
from services.messaging.consumers.durable import ConsumerOptions
from services.messaging.consumers.ingest import IngestConsumer
from services.messaging.domain.contact import Identity, IdentityKind, InboundMessage
from services.messaging.domain.message import StatusReport
from services.messaging.providers.twilio import webhooks
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import Party
from services.messaging.store.public_ids import new_public_id
from services.messaging.usecases.receive import Receive
from tests.support.databases import PostgresServer, migrated
from tests.support.nats import NatsServer
from tests.support.receiving import clear, message_event, receive

_BATCH = ConsumerOptions().batch_size
_CONTACTS = 200


class _Counting:
    """The use case, and when everything has gone through it."""

    def __init__(self, handle: Receive, total: int) -> None:
        self._handle = handle
        self._left = total
        self.done = asyncio.Event()

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> object:
        result = await self._handle(messages, reports)
        self._left -= len(messages) + len(reports)
        if self._left <= 0:
            self.done.set()
        return result


async def _fill_journal(client: Client, events: Sequence[JournalEvent]) -> None:
    with contextlib.suppress(NotFoundError):
        await client.jetstream().delete_stream(INGEST_STREAM)
    await ensure_streams(client.jetstream(), replicas=1, max_bytes=1024**3)
    publisher = JournalPublisher(client, timeout_seconds=60)
    for start in range(0, len(events), 4096):
        await asyncio.gather(*map(publisher.publish, events[start : start + 4096]))
    await publisher.close()


async def _consumer(client: Client, database: Database, events: Sequence[JournalEvent]) -> float:
    """Events per second by the consumer."""
    await _fill_journal(client, events)
    handle = _Counting(
        receive(SqlIngestStore(database), clock=lambda: datetime.now(UTC), replies=None),
        len(events),
    )
    consumer = IngestConsumer(
        client,
        handle,
        {webhooks.PROVIDER: webhooks},
        registry=CollectorRegistry(),
    )
    started = time.perf_counter()
    task = asyncio.create_task(consumer.run())
    await handle.done.wait()
    seconds = time.perf_counter() - started
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.read() as connection:
        for table in (MessageRow, MessageEventRow):
            stored = await connection.scalar(select(func.count()).select_from(table))
            if stored != len(events):
                raise SystemExit(f"{stored} of {len(events)} rows in {table.__tablename__}")
    return len(events) / seconds


async def _yardstick(database: Database, total: int) -> float:
    """Messages per second by multi-row inserts alone."""
    now = datetime.now(UTC)
    async with database.write() as connection:
        party = Party(
            (Identity(IdentityKind.PHONE, "+972500000000"),),
            "whatsapp:+972500000000",
            "whatsapp:+14155238886",
        )
        [conversation] = await resolve_conversations(connection, [party], now)
    rows = [
        {
            "public_id": new_public_id(),
            "conversation_id": conversation.id,
            "direction": "inbound",
            "author": "contact",
            "contact_address": party.contact_address,
            "own_address": party.own_address,
            "body": "Hello",
            "media": [],
            "provider": "twilio",
            "provider_message_id": f"SM{number:08d}",
            "status": "received",
            "created_at": now,
        }
        for number in range(total)
    ]
    # With RETURNING the driver gets one statement of many rows, not many statements.
    statement = insert(MessageRow).returning(MessageRow.id)
    started = time.perf_counter()
    for start in range(0, total, _BATCH):
        async with database.write() as connection:
            await connection.execute(statement, rows[start : start + _BATCH])
    return total / (time.perf_counter() - started)


async def _compare(nats_url: str, url: str, total: int, rounds: int) -> Result:
    client = await connect(nats_url, name="benchmark", on_closed=_nothing)
    database = Database(
        migrated(url), pool_size=5, max_overflow=0, pool_timeout_seconds=30, slow_query_seconds=30
    )
    events = [message_event(number, contact=number % _CONTACTS) for number in range(total)]
    ratios, consumed, inserted = [], [], []
    try:
        for number in range(rounds):
            await clear(database)
            yardstick = await _yardstick(database, total)
            await clear(database)
            consumer = await _consumer(client, database, events)
            ratios.append(consumer / yardstick)
            consumed.append(consumer)
            inserted.append(yardstick)
            say(
                f"{database.dialect}, round {number + 1}: consumer {consumer:,.0f}/s, "
                f"inserts alone {yardstick:,.0f}/s, ratio {ratios[-1]:.2f}"
            )
    finally:
        await database.close()
        await client.close()
    return Result(
        f"events stored, {database.dialect}",
        ratios,
        against="one multi-row insert of the messages alone",
        wanted="at least 0.5",
        details=f"{statistics.median(consumed):,.0f}/s, {statistics.median(inserted):,.0f}/s",
    )


async def _nothing() -> None:
    pass


@contextlib.contextmanager
def _databases(folder: Path) -> Iterator[list[str]]:
    server = PostgresServer(folder / "postgres")
    try:
        with server.database() as url:
            yield [f"sqlite:///{folder}/switchboard.db", url]
    finally:
        server.stop()


def measure(options: argparse.Namespace) -> list[Result]:
    """Compare on either database."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            with _databases(Path(folder)) as urls:
                return [
                    uvloop.run(_compare(server.url, url, options.events, options.rounds))
                    for url in urls
                ]
        finally:
            server.stop()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    results.run(parser, measure, quick={"events": 3_000, "rounds": 1})


if __name__ == "__main__":
    main()
