"""Watching over gRPC: whoever comes back with the last cursor misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from nats.aio.client import Client
from sqlalchemy import insert, update
from switchboard.messaging.v1 import message_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.messaging.consumers.changes import ChangeSignal
from services.messaging.domain.message import MessageStatus
from services.messaging.grpc_api.tokens import encode_cursor
from services.messaging.store.changes import SqlChangeReader
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.database import Database
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import Party
from services.messaging.store.public_ids import new_public_id
from services.messaging.usecases.watch import Watch
from tests.support.databases import PostgresServer, migrated
from tests.support.grpc_api import called, details, served
from tests.support.nats import NatsServer
from tests.support.receiving import OWN, at, inbound, phone, receive, report
from tests.support.sending import now, open_database, running, until

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )

NEVER = 3600.0


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with served(database) as server, called(server) as api:
        yield api


async def take(database: Database, *messages: Any, reports: Sequence[Any] = ()) -> None:
    await receive(SqlIngestStore(database), clock=now, replies=None)(messages, reports)


async def first(call: Any) -> pb.WatchMessagesResponse:
    """The next response, which tells only the cursor."""
    response = await call.read()
    assert isinstance(response, pb.WatchMessagesResponse)
    assert response.cursor
    assert not response.HasField("event")
    return response


async def read(call: Any, count: int) -> list[pb.WatchMessagesResponse]:
    """The next responses that tell of an event."""
    events: list[pb.WatchMessagesResponse] = []
    async with asyncio.timeout(60):
        while len(events) < count:
            response = await call.read()
            assert response is not grpc.aio.EOF
            assert response.cursor
            if response.HasField("event"):
                events.append(response)
    return events


async def test_a_watcher_sees_what_happens_from_now_on(api: Api, database: Database) -> None:
    """The first response tells the cursor; then come events, each with its message as it is."""
    await take(database, inbound("before", contact=1))
    call = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
    await first(call)
    await take(database, inbound("SM1", contact=1, body="Hello"))
    [received] = await read(call, 1)
    assert received.event.kind == message_pb2.MESSAGE_EVENT_KIND_RECEIVED
    assert received.event.status == message_pb2.MESSAGE_STATUS_RECEIVED
    assert received.event.cursor == received.cursor
    assert received.event.message_id == received.message.id
    assert received.message.body == "Hello"
    call.cancel()
    await take(database, inbound("SM2", contact=1, body="While away"))
    again = pb.WatchMessagesRequest(cursor=received.cursor)
    [missed] = await read(api.WatchMessages(again, timeout=60), 1)
    assert missed.message.body == "While away"
    asked = pb.GetMessageRequest(id=missed.message.id, include_events=True)
    assert list((await api.GetMessage(asked)).events) == [missed.event]


async def test_a_watcher_may_follow_one_contact(api: Api, database: Database) -> None:
    """With a contact only that contact's messages are told; the cursor moves on all the same."""
    everyone = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
    start = await first(everyone)
    for batch in range(0, 250, 50):
        numbers = range(batch, batch + 50)
        await take(database, *(inbound(f"SM{n:03}", contact=n % 2, body=str(n)) for n in numbers))
    asked = pb.WatchMessagesRequest(cursor=start.cursor, contact_address="050-000-0001")
    told = await read(api.WatchMessages(asked, timeout=60), 125)
    assert [one.message.body for one in told] == [str(n) for n in range(1, 250, 2)]
    unknown = pb.WatchMessagesRequest(contact_address=phone(9))
    await first(api.WatchMessages(unknown, timeout=60))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.WatchMessagesRequest(cursor="nonsense"), "cursor"),
        (pb.WatchMessagesRequest(cursor="\0"), "cursor"),
        (pb.WatchMessagesRequest(cursor="x" * 100_000), "cursor"),
        (pb.WatchMessagesRequest(contact_address="nobody"), "contact_address"),
    ],
)
async def test_a_bad_watch_request_names_its_field(
    api: Api, request_: pb.WatchMessagesRequest, field: str
) -> None:
    """A cursor or contact that makes no sense is refused, never taken for "from now on"."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.WatchMessages(request_, timeout=60).read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(raised.value)["ErrorInfo"].metadata["field"] == field


async def test_another_databases_cursor_is_refused(api: Api, database: Database) -> None:
    """A cursor from beyond the end would wait for ever, so it is refused."""
    await take(database, *(inbound(f"SM{number}") for number in range(3)))
    reader = SqlChangeReader(database)
    transaction_id, row_id = await reader.end()
    beyond = encode_cursor((transaction_id + 1000, min(row_id, 2**62) + 1000))
    call = api.WatchMessages(pb.WatchMessagesRequest(cursor=beyond), timeout=60)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read(call, 1)
    assert details(raised.value)["ErrorInfo"].metadata["field"] == "cursor"


async def test_a_restored_database_repeats_nothing(postgres: PostgresServer) -> None:
    """Events numbered by another cluster are old ones, also once its numbers are reached here."""
    with postgres.database() as url:
        migrated(url)
        async with open_database(url) as database:
            await take(database, inbound("SM1", contact=1))
            reader = SqlChangeReader(database)
            ahead, _ = await reader.end()
            async with database.write() as connection:
                await connection.execute(update(MessageEventRow).values(transaction_id=ahead + 9))
            assert await reader.adopt() == 1
            assert await reader.adopt() == 0
            start = await reader.end()
            for number in range(2, 12):
                await take(database, inbound(f"SM{number}", contact=1))
            page = await reader.after(start, limit=50, contact=None)
            assert [one.message.provider_message_id for one in page.changes] == [
                f"SM{number}" for number in range(2, 12)
            ]


async def test_no_event_is_missed_or_repeated(api: Api, database_url: str) -> None:
    """Transactions that commit in any order, and watchers that come and go, lose nothing.

    Writers hold their transactions open for a random time after they have got their row ids.
    """
    total, writers = 96, 8
    chance = random.Random(7)
    async with open_database(database_url) as own:
        async with own.write() as connection:
            party = Party(inbound("x").identities, f"whatsapp:{phone(0)}", OWN)
            [conversation] = await resolve_conversations(connection, [party], now())

        async def write(number: int) -> None:
            async with own.write() as connection:
                row_id = await connection.scalar(
                    insert(MessageRow).returning(MessageRow.id),
                    {
                        "public_id": new_public_id(),
                        "conversation_id": conversation.id,
                        "direction": "inbound",
                        "author": "contact",
                        "contact_address": party.contact_address,
                        "own_address": OWN,
                        "body": str(number),
                        "media": [],
                        "provider": "twilio",
                        "status": "received",
                        "created_at": at(number),
                    },
                )
                for part in range(chance.choice([1, 1, 3])):
                    await connection.execute(
                        insert(MessageEventRow).values(
                            message_id=row_id,
                            event_key=f"{number}:{part}",
                            kind="received",
                            occurred_at=at(number),
                            source="received",
                            payload={},
                        )
                    )
                    written.append(f"{number}:{part}")
                    if own.dialect == "postgresql":
                        await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.1]))

        async def writer(start: int) -> None:
            for number in range(start, total, writers):
                await write(number)

        async def watcher(cursor: str) -> list[tuple[str, str]]:
            seen: list[tuple[str, str]] = []
            while not (done.is_set() and len(seen) >= len(written)):
                call = api.WatchMessages(pb.WatchMessagesRequest(cursor=cursor), timeout=60)
                for _ in range(chance.randrange(1, 40)):
                    try:
                        async with asyncio.timeout(5):
                            response = await call.read()
                    except TimeoutError:
                        break
                    assert isinstance(response, pb.WatchMessagesResponse)
                    cursor = response.cursor
                    if response.HasField("event"):
                        seen.append((response.event.cursor, response.message.body))
                call.cancel()
            return seen

        written: list[str] = []
        done = asyncio.Event()
        start = await first(api.WatchMessages(pb.WatchMessagesRequest(), timeout=60))
        watchers = [asyncio.create_task(watcher(start.cursor)) for _ in range(5)]
        await asyncio.gather(*map(writer, range(writers)))
        done.set()
        async with asyncio.timeout(60):
            seen = await asyncio.gather(*watchers)
    expected = sorted(key.split(":")[0] for key in written)
    for one in seen:
        assert sorted(body for _, body in one) == expected
        assert len({cursor for cursor, _ in one}) == len(one)
        assert one == seen[0]


async def test_a_change_wakes_watchers_of_every_replica(
    database_url: str, nats_server: NatsServer
) -> None:
    """Without any polling a watcher hears of what another replica has stored."""
    clients = [Client(), Client()]
    signals = [ChangeSignal(client) for client in clients]
    for client in clients:
        await client.connect(nats_server.url)
    try:
        async with (
            open_database(database_url, on_events=signals[0].announce) as writing,
            open_database(database_url, on_events=signals[1].announce) as reading,
        ):
            watch = Watch(SqlChangeReader(reading), poll_seconds=NEVER, alive_seconds=NEVER)
            async with (
                running(signals[0].run(lambda: None), signals[1].run(watch.wake)),
                served(reading, watch=watch) as server,
                called(server) as api,
            ):
                call = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
                await call.read()
                await until(_subscribed(clients[1]))
                await take(writing, inbound("SM1", contact=1))
                await read(call, 1)
                await take(writing, reports=[report("SM1", MessageStatus.SENT)])
                await read(call, 1)
                # Also a transaction that adds nothing to see wakes nobody, and breaks nothing.
                await take(writing, inbound("SM1", contact=1))
                await take(writing, inbound("SM2", contact=1))
                await read(call, 1)
    finally:
        for client in clients:
            await client.close()


def _subscribed(client: Client) -> Any:
    async def answer() -> bool:
        return len(client._subs) > 0

    return answer


async def test_a_quiet_stream_shows_that_it_lives(database: Database) -> None:
    """While nothing happens a response with the cursor comes now and then."""
    watch = Watch(SqlChangeReader(database), alive_seconds=0.05)
    async with served(database, watch=watch) as server, called(server) as api:
        call = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
        responses = [await first(call) for _ in range(4)]
        assert len({response.cursor for response in responses}) == 1


async def test_a_stopping_server_sends_watchers_elsewhere(database: Database) -> None:
    """A server that stops ends its streams at once with UNAVAILABLE: come back, nothing is lost."""
    async with contextlib.AsyncExitStack() as stack:
        serving = served(database)
        api = await stack.enter_async_context(called(await serving.__aenter__()))
        call = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
        await call.read()
        stopping = asyncio.create_task(serving.__aexit__(None, None, None))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        await stopping
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_watchers_are_limited(database: Database) -> None:
    """Beyond the limit a watcher is told to try later, and a place that is left is free again."""
    watch = Watch(SqlChangeReader(database), max_watchers=1)
    async with served(database, watch=watch) as server, called(server) as api:
        watching = api.WatchMessages(pb.WatchMessagesRequest(), timeout=60)
        await first(watching)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.WatchMessages(pb.WatchMessagesRequest(), timeout=60).read()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watching.cancel()

        async def free() -> bool:
            try:
                await api.WatchMessages(pb.WatchMessagesRequest(), timeout=60).read()
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(free)


async def test_streams_need_the_token(database: Database) -> None:
    """Without a valid token a stream is UNAUTHENTICATED before it says anything."""
    async with served(database) as server, called(server, "wrong") as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.WatchMessages(pb.WatchMessagesRequest(), timeout=60).read()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_lost_database_ends_a_stream(postgres: PostgresServer) -> None:
    """A database that is gone is UNAVAILABLE, and the text names neither tables nor files."""
    with postgres.database() as url:
        pass
    async with (
        open_database(url) as database,
        served(database) as server,
        called(server) as api,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.WatchMessages(pb.WatchMessagesRequest(), timeout=60).read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "test_" not in (raised.value.details() or "")
