"""What tests of sending share: a database, a sandbox, and the parts wired with short times."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr
from sqlalchemy import select, text, update
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from sandbox.faults import Faults
from sandbox.server import RunningSandbox, running_sandbox
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.message import Author
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderCondition
from services.messaging.ports.sending import NewMessage, Provider
from services.messaging.providers.twilio.client import TwilioProvider
from services.messaging.providers.twilio.session import TwilioSession, open_session
from services.messaging.providers.twilio.webhooks import status_report
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.breaker import Breaker
from services.messaging.usecases.dispatch import Dispatcher
from services.messaging.usecases.pace import RecipientPace
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.reconcile import Reconciler
from services.messaging.usecases.retrying import RetryPolicy
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN, OUR_NUMBER, Receiver, sandbox_settings

NOBODY = "http://127.0.0.1:9"
PHONE = "+972501234567"

ANY_TIME = SendPolicy(window=None, pace=RecipientPace(interval=timedelta()))
"""The rules without the 24-hour window and a pace, for tests of other things."""


def now() -> datetime:
    """The real time."""
    return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told."""

    def __init__(self, time: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)) -> None:
        self.time = time

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


@asynccontextmanager
async def open_database(url: str, **options: Any) -> AsyncIterator[Database]:
    """A database with a small pool, closed afterwards."""
    database = Database(
        url,
        pool_size=5,
        max_overflow=5,
        pool_timeout_seconds=10,
        slow_query_seconds=10,
        **options,
    )
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def open_sandbox(**settings: Any) -> AsyncIterator[RunningSandbox]:
    """A sandbox whose messages go through their life fast; nobody takes its callbacks."""
    values = {"webhook_url": NOBODY, "public_host": NOBODY, **settings}
    async with running_sandbox(sandbox_settings(**values)) as sandbox:
        yield sandbox


@asynccontextmanager
async def twilio(
    base_url: str,
    *,
    seconds: float = 30,
    token: str = AUTH_TOKEN,
    public_host: str = NOBODY,
    name: str = "twilio",
    clock: Clock = now,
) -> AsyncIterator[TwilioProvider]:
    """A provider for the sandbox."""
    async with twilio_session(base_url, seconds=seconds, token=token, clock=clock) as session:
        yield TwilioProvider(session, public_host=public_host, name=name)


def patience(faults: Faults) -> float:
    """Seconds that a client waits for an answer: few only where none comes in time.

    On a busy machine an answer takes its time, and one that is given up is another fault.
    """
    return 2 if faults.hang or faults.latency else 30


def twilio_session(
    base_url: str, *, seconds: float = 30, token: str = AUTH_TOKEN, clock: Clock = now
) -> AbstractAsyncContextManager[TwilioSession]:
    """The sandbox's account, for what is more than a provider."""
    return open_session(
        account_sid=ACCOUNT_SID,
        auth_token=SecretStr(token),
        base_url=base_url,
        request_timeout=timedelta(seconds=seconds),
        clock=clock,
    )


def new_message(
    body: str = "Hello",
    *,
    to: str = PHONE,
    request_id: str | None = None,
    request_hash: str | None = None,
    **values: Any,
) -> NewMessage:
    """A message to a contact."""
    return NewMessage(
        recipient=Identity(IdentityKind.PHONE, to),
        contact_address=f"whatsapp:{to}",
        own_address=OUR_NUMBER,
        body=body,
        request_id=request_id,
        request_hash=request_hash,
        **{"provider": "twilio", "author": Author.API, **values},
    )


async def _nothing(_: Collection[str]) -> None:
    pass


@dataclass(frozen=True)
class Sender:
    """A process that sends, with times short enough for tests."""

    dispatcher: Dispatcher
    reconciler: Reconciler


def sender(
    store: SqlOutboxStore,
    provider: Provider,
    *others: Provider,
    breaker_failures: int = 5,
    breaker_pause: float = 0.3,
    concurrency: int = 8,
    grace: float = 0.5,
    lease: float = 60,
    send_timeout: float = 20,
    on_accepted: Callable[[Collection[str]], Awaitable[object]] = _nothing,
    conditions: Mapping[str, Callable[[], ProviderCondition]] | None = None,
    clock: Clock = now,
) -> Sender:
    """The dispatcher and reconciler of one process; times in seconds."""
    retry = RetryPolicy(first_pause=timedelta(seconds=0.1), longest_pause=timedelta(seconds=0.5))
    providers = {one.name: one for one in (provider, *others)}
    dispatcher = Dispatcher(
        store,
        providers,
        clock=clock,
        on_accepted=on_accepted,
        concurrency=concurrency,
        lease=timedelta(seconds=lease),
        send_timeout=timedelta(seconds=send_timeout),
        poll=timedelta(seconds=0.1),
        first_look=timedelta(),
        retry=retry,
        breakers={
            name: Breaker(
                name,
                clock,
                failures=breaker_failures,
                first_pause=timedelta(seconds=breaker_pause),
                condition=(conditions or {}).get(name, lambda: ProviderCondition(usable=True)),
            )
            for name in providers
        },
    )
    reconciler = Reconciler(
        store,
        providers,
        clock=clock,
        on_accepted=on_accepted,
        on_due=dispatcher.wake,
        grace=timedelta(seconds=grace),
        lease=timedelta(seconds=lease),
        poll=timedelta(seconds=0.1),
        first_look=timedelta(seconds=0.1),
        retry=retry,
    )
    return Sender(dispatcher, reconciler)


async def end_leases(database: Database) -> None:
    """Let what a killed process had claimed be taken at once."""
    async with database.write() as connection:
        await connection.execute(update(OutboxRow).values(lease_until=now()))


async def unsettled(database: Database) -> list[tuple[str, int]]:
    """State and attempts of what is left in the outbox, oldest first."""
    async with database.read() as connection:
        rows = await connection.execute(
            text("SELECT state, attempts FROM outbox ORDER BY message_id")
        )
        return [(row.state, row.attempts) for row in rows]


async def stored(database: Database) -> list[Any]:
    """All messages, oldest first."""
    async with database.read() as connection:
        return list(
            (await connection.execute(select(MessageRow.__table__).order_by(MessageRow.id))).all()
        )


async def events(database: Database, message_id: str) -> list[str]:
    """What happened to a message: kinds, outcomes with their kind."""
    async with database.read() as connection:
        rows = await connection.execute(
            select(MessageEventRow.kind, MessageEventRow.payload)
            .join(MessageRow, MessageRow.id == MessageEventRow.message_id)
            .where(MessageRow.public_id == message_id)
            .order_by(MessageEventRow.id)
        )
        return [row.payload.get("outcome", row.kind) for row in rows]


@asynccontextmanager
async def running(*loops: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless loops meanwhile; then cancel them and wait until they have drained."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [one for one in results if not isinstance(one, asyncio.CancelledError)]
        assert failures == [], [repr(one) for one in failures]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until something holds that other tasks or processes bring about."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - Nobody sets an event for it.
            await asyncio.sleep(0.02)


async def until_settled(database: Database, seconds: float = 60) -> None:
    """Wait until the outbox is empty."""

    async def empty() -> bool:
        return not await unsettled(database)

    await until(empty, seconds)


@asynccontextmanager
async def ingesting(receiver: Receiver, database: Database) -> AsyncIterator[None]:
    """Store the status callbacks that a receiver gets, as the journal's consumer would."""
    store = SqlIngestStore(database)

    async def follow() -> None:
        seen = 0
        while True:
            if seen == len(receiver.received):
                await asyncio.sleep(0.01)
                continue
            webhook = receiver.received[seen]
            seen += 1
            event = WebhookReceived(
                parameters=[Parameter(name=n, value=v) for n, v in webhook.form.multi_items()],
                query_parameters=[Parameter(name=n, value=v) for n, v in parse_qsl(webhook.query)],
            )
            key = f"{webhook.form['MessageSid']}:{webhook.form['MessageStatus']}"
            await store.ingest([], [status_report(key, event, now())])

    async with running(follow()):
        yield
