"""The journal's consumer, with a real NATS server and real databases."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import nats.errors
import pytest
from nats.js.errors import APIError
from prometheus_client import CollectorRegistry

from services.common.errors import UnavailableError
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.streams import (
    INGEST_STREAM,
    connect,
    ensure_ingest_consumer,
)
from services.messaging.consumers.delivery import Delivery
from services.messaging.consumers.durable import ConsumerOptions
from services.messaging.consumers.ingest import DURABLE, Handler, IngestConsumer
from services.messaging.consumers.pulling import Pull
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from services.messaging.providers.twilio import webhooks
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.usecases.receive import Receive
from tests.support.journal import (
    closed,
    consuming,
    dead,
    journal,
    publish,
    settled,
)
from tests.support.nats import NatsServer
from tests.support.receiving import (
    OWN,
    message_event,
    receive,
    rows,
    status_event,
    webhook_event,
)
from tests.support.sending import open_database, until


def real(database: Database) -> Receive:
    """The use case on a real database, without an assistant."""
    return receive(SqlIngestStore(database), clock=lambda: datetime.now(UTC), replies=None)


class Gate:
    """The real use case behind something that a test can break.

    Args:
        fail: Gets each batch first, and may raise.
    """

    def __init__(
        self,
        handle: Handler,
        fail: Callable[[Sequence[InboundMessage], Sequence[StatusReport]], None],
    ) -> None:
        self._handle = handle
        self._fail = fail

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> object:
        self._fail(messages, reports)
        return await self._handle(messages, reports)


async def test_events_are_stored_and_acknowledged(
    nats_server: NatsServer, database_url: str
) -> None:
    """Messages and statuses of the journal end in the database, and leave nothing pending."""
    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(20)), status_event("SMx", "delivered"))
        async with consuming(client, real(database)):
            await until(settled(client))
        assert len(await rows(database, "messages")) == 20
        assert len(await rows(database, "parked_statuses")) == 1
        assert await dead(client) == []


async def test_reports_wait_for_company_and_messages_for_nobody(nats_server: NatsServer) -> None:
    """A report is held back for a moment; a message that comes meanwhile ends that at once."""
    batches: list[tuple[int, int]] = []

    async def handle(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        batches.append((len(messages), len(reports)))

    async with journal(nats_server) as client, consuming(client, handle, patience=600):

        async def held(count: int) -> bool:
            with contextlib.suppress(nats.errors.Error):
                info = await client.jetstream().consumer_info(INGEST_STREAM, DURABLE.name)
                return bool(info.num_ack_pending == count)
            return False

        await publish(client, status_event("SM1", "sent"))
        await until(lambda: held(1))
        await publish(client, status_event("SM1", "delivered"))
        await until(lambda: held(2))
        assert batches == []
        await publish(client, message_event(1))
        await until(settled(client))
    assert batches == [(1, 2)]


async def test_replicas_share_the_journal_and_store_everything_once(
    nats_server: NatsServer, database_url: str
) -> None:
    """Three replicas on one durable consumer store thousands of repeated events once each."""
    events = [message_event(number, contact=number % 40) for number in range(1500)]
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(journal(nats_server))
        first = await stack.enter_async_context(open_database(database_url))
        async with asyncio.TaskGroup() as group:
            for part in range(3):
                # Neighbours land in different batches, and so on different replicas.
                group.create_task(publish(client, *events[part::3], duplicates=2))
        async with contextlib.AsyncExitStack() as running:
            for _ in range(3):
                other = await stack.enter_async_context(journal(nats_server))
                # SQLite is one machine's: there the replicas are one process with one writer.
                database = (
                    first
                    if first.dialect == "sqlite"
                    else await stack.enter_async_context(open_database(database_url))
                )
                await running.enter_async_context(consuming(other, real(database), batch_size=64))
            await until(settled(client), seconds=90)
        messages = await rows(first, "messages")
        assert {row["provider_message_id"] for row in messages} == {
            f"SM{number:08d}" for number in range(1500)
        }
        assert len(messages) == len(await rows(first, "message_events")) == 1500
        assert len(await rows(first, "contacts")) == len(await rows(first, "conversations")) == 40
        assert await dead(client) == []


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (message_event(1, body="x"), None),
        (
            webhook_event(EventKind.WHATSAPP_MESSAGE, "k", {"From": "whatsapp:+15551234567"}),
            "MessageSid: is missing",
        ),
        (
            webhook_event(
                EventKind.WHATSAPP_MESSAGE, "k", {"MessageSid": "SM1", "From": "who?", "To": OWN}
            ),
            "From: is neither a phone number nor a WhatsApp user id",
        ),
        (
            webhook_event(
                EventKind.WHATSAPP_STATUS, "k", {"MessageSid": "S" * 200, "MessageStatus": "sent"}
            ),
            "MessageSid: is longer than 128 characters",
        ),
        (
            webhook_event(EventKind.WHATSAPP_MESSAGE, "k", {}, provider="pigeon"),
            "the provider is unknown",
        ),
    ],
)
async def test_poison_is_kept_with_its_reason(
    nats_server: NatsServer, event: JournalEvent, reason: str | None
) -> None:
    """What can't be understood is in DEAD at once, with data, headers and a reason."""
    handled: list[InboundMessage] = []

    async def handle(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        handled.extend(messages)

    async with journal(nats_server) as client:
        await publish(client, message_event(7), event)
        async with consuming(client, handle):
            await until(settled(client))
        letters = await dead(client)
        if reason is None:
            assert letters == []
            assert len(handled) == 2
            return
        [letter] = letters
        assert letter.data == event.data
        assert letter.subject == event.kind.subject.replace("ingest.", "dead.")
        headers = letter.headers or {}
        assert headers["dead-reason"] == reason
        assert headers["dead-subject"] == event.kind.subject
        assert (headers["dead-sequence"], headers["dead-deliveries"]) == ("2", "1")
        assert headers["ce-id"] == "k"
        assert [one.provider_message_id for one in handled] == ["SM00000007"]


async def test_garbage_on_the_stream_is_kept(nats_server: NatsServer) -> None:
    """Bytes without headers, or with headers that steer JetStream, end in DEAD as well."""

    async def handle(
        messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> None: ...

    async with journal(nats_server) as client:
        js = client.jetstream()
        await js.publish("ingest.whatsapp.message", b"\xff\xfe", timeout=60)
        headers = message_event(1).entry().named_headers()
        await js.publish("ingest.whatsapp.message", b"\xff\xfe", headers=headers, timeout=60)
        async with consuming(client, handle):
            await until(settled(client))
        assert [(one.headers or {})["dead-reason"] for one in await dead(client)] == [
            "no headers",
            "the data is not a WebhookReceived message",
        ]


async def test_only_the_poison_of_a_batch_goes_to_dead(
    nats_server: NatsServer, database_url: str
) -> None:
    """A batch that the database refuses is stored but for the event that is at fault."""

    def refuse(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        if any(one.body == "poison" for one in messages):
            raise ValueError("a value doesn't fit its column")

    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, message_event(1), message_event(2, body="poison"), message_event(3))
        async with consuming(client, Gate(real(database), refuse)):
            await until(settled(client))
        assert len(await rows(database, "messages")) == 2
        [letter] = await dead(client)
        assert (letter.headers or {})["dead-reason"] == "a value doesn't fit its column"


async def test_an_event_that_goes_on_failing_ends_in_dead(nats_server: NatsServer) -> None:
    """An unforeseen error is tried again a few times, then kept aside without its text."""

    async def fail(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        raise KeyError("what a contact wrote")

    async with journal(nats_server) as client:
        await publish(client, message_event(1))
        async with consuming(client, fail, max_attempts=3):
            await until(settled(client))
        [letter] = await dead(client)
        assert (letter.headers or {})["dead-reason"] == "failed again and again: KeyError"
        assert (letter.headers or {})["dead-deliveries"] == "3"


async def test_waiting_for_the_database_is_no_fault_of_an_event(
    nats_server: NatsServer, database_url: str
) -> None:
    """However often the database is away, events wait and are stored when it is back."""
    tries = 0

    def away(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise UnavailableError("the database doesn't answer")

    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(5)))
        async with consuming(client, Gate(real(database), away), max_attempts=2):
            await until(settled(client))
        assert len(await rows(database, "messages")) == 5
        assert await dead(client) == []


async def test_what_waited_for_the_database_is_stored_once_it_is_back(
    nats_server: NatsServer, database_url: str
) -> None:
    """Its delay doesn't grow with the times it was offered in vain, as that of a bad event does.

    Found by restarting the database under load: events waited for up to a minute afterwards.
    """
    tries = 0

    def away(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise UnavailableError("the database doesn't answer")

    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, message_event(1))
        async with consuming(client, Gate(real(database), away), first_delay=60):
            await until(settled(client))
        assert len(await rows(database, "messages")) == 1


async def test_what_waited_for_the_database_is_stored_together(
    nats_server: NatsServer, database_url: str
) -> None:
    """However often events were offered in vain, they don't each take a transaction afterwards."""
    tries = 0
    sizes: list[int] = []

    def away(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise UnavailableError("the database doesn't answer")
        sizes.append(len(messages))

    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(20)))
        async with consuming(client, Gate(real(database), away)):
            await until(settled(client))
        assert sum(sizes) == len(await rows(database, "messages")) == 20
        assert max(sizes) > 1


async def test_large_events_make_small_batches(nats_server: NatsServer) -> None:
    """What is fetched at once is bounded in bytes, and nothing is left out for it."""
    async with journal(nats_server) as client:
        await publish(client, *(message_event(number, body="x" * 2000) for number in range(5)))
        await ensure_ingest_consumer(
            client.jetstream(),
            durable=DURABLE.name,
            subjects=DURABLE.subjects,
            ack_wait_seconds=30,
            max_deliver=-1,
        )
        pull = Pull(client, stream=INGEST_STREAM, consumer=DURABLE.name)
        # None of these waits so long but on a busy machine.
        fetch = partial(pull.fetch, wait_seconds=30)
        sizes = [len(await fetch(at_most, max_bytes=6000)) for at_most in (10, 10, 1)]
        await publish(client, message_event(6, body="x" * 8000))
        with pytest.raises(APIError):
            await fetch(10, max_bytes=6000)
        [event] = await fetch(1)
        await pull.close()
    assert sizes == [2, 2, 1]
    assert len(event.message.data) > 8000


@pytest.mark.parametrize(("kills", "at_most"), [(3, 8), (4, 1)])
async def test_what_may_have_brought_a_process_down_ends_up_alone(
    nats_server: NatsServer, database_url: str, kills: int, at_most: int
) -> None:
    """Events that come again without an explanation are stored in smaller and smaller company."""
    sizes: list[int] = []

    def note(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        sizes.append(len(messages))

    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(9)))
        await ensure_ingest_consumer(
            client.jetstream(),
            durable=DURABLE.name,
            subjects=DURABLE.subjects,
            ack_wait_seconds=30,
            max_deliver=-1,
        )
        pull = Pull(client, stream=INGEST_STREAM, consumer=DURABLE.name)
        for _ in range(kills):
            events: list[Delivery] = []
            while len(events) < 9:
                events += await pull.fetch(9 - len(events), wait_seconds=1)
            for event in events:
                await event.nak(0)
        await pull.close()
        async with consuming(client, Gate(real(database), note)):
            await until(settled(client))
        assert max(sizes) <= at_most
        assert sum(sizes) == len(await rows(database, "messages")) == 9


async def test_a_crash_between_commit_and_acknowledgement_loses_and_doubles_nothing(
    nats_server: NatsServer, database_url: str
) -> None:
    """What was stored and not acknowledged comes again and changes nothing."""
    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(50)))
        stored = asyncio.Event()

        async def commit_then_hang(
            messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
        ) -> None:
            await real(database)(messages, reports)
            stored.set()
            await asyncio.Event().wait()

        doomed = await connect(nats_server.url, name="doomed", on_closed=closed)
        consumer = IngestConsumer(
            doomed,
            commit_then_hang,
            {webhooks.PROVIDER: webhooks},
            registry=CollectorRegistry(),
            options=ConsumerOptions(ack_wait_seconds=1),
        )
        work = asyncio.create_task(consumer._consume())
        await stored.wait()
        # As a kill would: nothing is finished, acknowledged or given back.
        work.cancel()
        await doomed.close()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        before = await rows(database, "messages")
        assert len(before) == 50
        async with consuming(client, real(database), ack_wait=1):
            await until(settled(client))
        assert await rows(database, "messages") == before


async def test_a_stop_finishes_the_batch_in_hand(
    nats_server: NatsServer, database_url: str
) -> None:
    """A consumer told to stop stores and acknowledges what it has fetched."""
    async with journal(nats_server) as client, open_database(database_url) as database:
        await publish(client, *map(message_event, range(10)))
        working = asyncio.Event()

        async def slow(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
            working.set()
            await asyncio.sleep(0.5)
            await real(database)(messages, reports)

        async with consuming(client, slow):
            await working.wait()
        assert len(await rows(database, "messages")) == 10
        assert await settled(client)()


async def test_slow_work_keeps_its_lease(nats_server: NatsServer) -> None:
    """Work that takes longer than the lease isn't given to another replica meanwhile."""
    batches: list[int] = []
    # Renewed three times in its length; a test that others keep waiting for seconds must not lose
    # it, as a process that stands still for so long does.
    lease = 6.0

    async def slow(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        batches.append(len(messages))
        await asyncio.sleep(lease + 2)

    async with journal(nats_server) as client, journal(nats_server) as other:
        await publish(client, *map(message_event, range(5)))
        async with consuming(client, slow, ack_wait=lease), consuming(other, slow, ack_wait=lease):
            await until(settled(client))
    assert sum(batches) == 5


async def test_a_broker_restart_is_survived(nats_server: NatsServer, database_url: str) -> None:
    """A broker that is killed and comes back goes on being consumed."""
    async with (
        journal(nats_server) as client,
        open_database(database_url) as database,
        consuming(client, real(database)),
    ):
        await publish(client, message_event(1))
        await until(settled(client))
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)

        async def connected() -> bool:
            return client.is_connected

        await until(connected)
        await publish(client, message_event(2))

        async def both() -> bool:
            return len(await rows(database, "messages")) == 2

        await until(both)
