"""What messaging finds out about itself, and what its gRPC says of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from switchboard.health.v1 import health_service_pb2 as pb
from switchboard.health.v1 import health_service_pb2_grpc as rpc

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.common.journal.streams import ensure_ingest_consumer
from services.messaging.consumers.ingest import DURABLE
from services.messaging.consumers.progress import Progress
from services.messaging.grpc_api.health_servicer import SERVICE_NAME
from services.messaging.health_wiring import wire_health
from services.messaging.ports.provider_status import ProviderState, ProviderStatus
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.settings import MessagingSettings
from services.messaging.store.activity import SqlActivityReader
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.condition import DatabaseCondition
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.usecases.health import SendingProbe, provider_finding
from services.messaging.usecases.pace import RecipientPace
from tests.support import calls
from tests.support.databases import PostgresServer
from tests.support.forwarder import forwarding
from tests.support.grpc_api import TOKEN
from tests.support.journal import journal, publish
from tests.support.nats import NatsServer
from tests.support.receiving import at, inbound, message_event, receive
from tests.support.sending import ANY_TIME, ManualClock, new_message, now, open_database

if TYPE_CHECKING:
    from switchboard.health.v1.health_service_pb2_grpc import HealthServiceAsyncStub

LEASE = timedelta(seconds=30)
SETTINGS = MessagingSettings.load(
    {
        "PUBLIC_HOST": "https://switchboard.example.com",
        "DATABASE_URL": "sqlite:////nowhere.db",
        "NATS_URL": "nats://nowhere",
        "GRPC_TOKEN": TOKEN,
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "secret",
        "TWILIO_WHATSAPP_NUMBER": "+14155238886",
    }
)
PROVIDER = ProviderStatus(
    "twilio",
    ProviderState.UNAVAILABLE,
    "failed 5 times in a row",
    last_failure_at=now(),
    last_error="21211: The number +972501234567 is not valid",
)


@dataclass
class Served:
    """Messaging's health over a socket."""

    health: "HealthServiceAsyncStub"
    standard: Any

    async def components(self, **wanted: pb.Status.ValueType) -> dict[str, pb.Component]:
        """What it tells, once these components are as wanted."""
        async with asyncio.timeout(60):
            while True:
                answer = await self.health.GetHealth(pb.GetHealthRequest(), timeout=60)
                found = {one.name: one for one in answer.components}
                if all(
                    name in found and found[name].status == status
                    for name, status in wanted.items()
                ):
                    return found
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def served(
    database: Database, client: Client, registry: CollectorRegistry | None = None
) -> AsyncIterator[Served]:
    health = wire_health(
        SETTINGS,
        client=client,
        database=database,
        reader=SqlMessageReader(database),
        durables=[DURABLE.name],
        providers=lambda: [PROVIDER],
        vendors=lambda: [ProviderStatus("assistant", ProviderState.UNTRIED, "nothing sent yet")],
        lost_webhooks=lambda: (3, None),
        registry=registry or CollectorRegistry(),
        clock=now,
    )
    server = GrpcServer(
        address="127.0.0.1:0",
        tokens=[TOKEN],
        service_names=[SERVICE_NAME],
        add_services=lambda server: rpc.add_HealthServiceServicer_to_server(
            health.servicer, server
        ),
    )
    running = asyncio.gather(health.monitor.run(), health.serve(server))
    try:
        async with open_channel(f"127.0.0.1:{server.port}", TOKEN) as channel:
            yield Served(rpc.HealthServiceStub(channel), health_pb2_grpc.HealthStub(channel))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def behind(database: Database) -> AsyncIterator[None]:
    """The database at an earlier migration."""
    async with database.write() as connection:
        newest = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        yield
    finally:
        async with database.write() as connection:
            await connection.execute(
                text("UPDATE alembic_version SET version_num = :newest"), {"newest": newest}
            )


async def test_grpc_health_and_the_report_tell_the_same(
    database: Database, nats_server: NatsServer
) -> None:
    """Whoever watches the standard health service hears of what the report says."""
    response = health_pb2.HealthCheckResponse
    async with (
        journal(nats_server) as client,
        served(database, client) as it,
    ):
        await it.components(database=pb.STATUS_OK)
        watching = it.standard.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        async with asyncio.timeout(90):
            assert (await watching.read()).status == response.SERVING
            async with behind(database):
                found = await it.components(database=pb.STATUS_DOWN)
                assert "the database needs migrating: run" in found["database"].reason
                assert (await watching.read()).status == response.NOT_SERVING
            assert (await watching.read()).status == response.SERVING
        watching.cancel()
        await it.components(database=pb.STATUS_OK)


async def test_all_that_messaging_knows_is_told(
    database: Database, nats_server: NatsServer
) -> None:
    """Database, progress, sending, activity, providers and vendors are in one answer."""
    async with journal(nats_server) as client, served(database, client) as it:
        found = await it.components(
            database=pb.STATUS_OK,
            processing=pb.STATUS_OK,
            sending=pb.STATUS_OK,
            activity=pb.STATUS_OK,
            configuration=pb.STATUS_OK,
            whatsapp_twilio=pb.STATUS_DOWN,
            assistant=pb.STATUS_OK,
        )
        assert found["database"].details["kind"] == database.dialect
        assert found["activity"].details["webhook_gaps"] == 3
        assert found["whatsapp_twilio"].reason == "failed 5 times in a row"
        assert found["whatsapp_twilio"].details["last_error"] == "21211"
        assert "972501234567" not in str(found)
        assert TOKEN not in str(found)


async def test_nats_that_is_away_makes_only_progress_unknown(
    database: Database, nats_server: NatsServer
) -> None:
    """The database's state doesn't hang on NATS, and calls still succeed."""
    async with journal(nats_server) as client, served(database, client) as it:
        await it.components(database=pb.STATUS_OK, processing=pb.STATUS_OK)
        nats_server.stop()
        found = await it.components(processing=pb.STATUS_UNKNOWN)
        assert found["database"].status == pb.STATUS_OK
        check = await it.standard.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        nats_server.start()
        await it.components(processing=pb.STATUS_OK)


async def test_a_database_that_was_never_migrated_is_down(empty_database_url: str) -> None:
    """An empty database answers, but nothing can be kept there."""
    database = Database(
        empty_database_url,
        pool_size=1,
        max_overflow=0,
        pool_timeout_seconds=5,
        slow_query_seconds=10,
    )
    try:
        found = await DatabaseCondition(database).look()
    finally:
        await database.close()
    assert "the database was never migrated: run" in found["database"].reason


async def test_a_database_that_is_away_is_down() -> None:
    """Who refuses gives a finding, not an error."""
    async with open_database("postgresql://127.0.0.1:9/none") as database:
        found = (await DatabaseCondition(database).look())["database"]
    assert (found.status, found.reason) == ("down", "the database doesn't answer")


async def test_a_database_that_only_answers_is_down(database: Database) -> None:
    """One that can be read and not written, as on a full disk, is no database to work with."""
    read_only = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET default_transaction_read_only = on",
    }[database.dialect]
    assert (await DatabaseCondition(database).look())["database"].status == "ok"
    async with database.read() as connection:
        await connection.execute(text(read_only))
        await connection.commit()
    found = (await DatabaseCondition(database).look())["database"]
    assert (found.status, found.reason) == ("down", "the database can't write: is its disk full?")


async def test_activity_counts_what_came_and_went(database: Database) -> None:
    """Messages in and out and calls, each within its span and its hour."""
    clock = ManualClock(at(0))
    outbox = SqlOutboxStore(database, clock, ANY_TIME)
    reader = SqlActivityReader(database, clock)
    handle = receive(SqlIngestStore(database), clock=clock, replies=None)
    await handle([inbound("SM1", seconds=-7200), inbound("SM2", seconds=-120)], [])
    await outbox.enqueue(new_message("Hello"))
    await SqlCallStore(database, clock, on_change=lambda _: None).seen(calls.seen(seconds=-600))
    five = await reader.since(timedelta(minutes=5))
    assert (five.messages_in, five.messages_out, five.calls) == (1, 1, 0)
    day = await reader.since(timedelta(hours=24))
    assert (day.messages_in, day.messages_out, day.calls) == (2, 1, 1)
    hours = await reader.hours(3)
    assert [hour.since.hour for hour in hours] == [10, 11, 12]
    assert [(hour.messages_in, hour.messages_out) for hour in hours] == [(1, 0), (1, 0), (0, 1)]
    await handle([inbound("SM3", seconds=-60)], [])
    assert [hour.messages_in for hour in await reader.hours(3)] == [1, 2, 0]


async def test_what_waits_too_long_to_be_sent_is_late(database: Database) -> None:
    """A send that isn't settled degrades sending after five minutes, and is measured before."""
    clock = ManualClock(at(0))
    registry = CollectorRegistry()
    probe = SendingProbe(SqlMessageReader(database), clock=clock, registry=registry)
    assert (await probe.look())["sending"].status == "ok"
    await receive(SqlIngestStore(database), clock=clock, replies=None)([inbound("SM1")], [])
    await SqlOutboxStore(database, clock, ANY_TIME).enqueue(new_message("Hello"))
    clock.forward(200)
    assert (await probe.look())["sending"].status == "ok"
    clock.forward(200)
    found = (await probe.look())["sending"]
    assert (found.status, found.reason) == ("degraded", "a message has been due for 400 s")
    assert registry.get_sample_value("switchboard_outbox_messages", {"state": "due"}) == 1
    assert registry.get_sample_value("switchboard_outbox_oldest_age_seconds") == 400


async def test_what_its_contact_s_pace_holds_back_is_not_late(database: Database) -> None:
    """Messages that go out at the pace we gave them count from when they were due."""
    clock, probe, outbox = await paced(database)
    for number in range(6):
        assert (await probe.look())["sending"].status == "ok"
        [claimed] = await outbox.claim(limit=10, lease=LEASE)
        await outbox.settle(claimed, SendOutcome(OutcomeKind.ACCEPTED, f"out-{number}"), clock())
        clock.forward(100)


async def test_what_waits_behind_a_stuck_message_is_late(database: Database) -> None:
    """Retrying puts a message off, and it ages all the same; so do those whose turn it keeps."""
    clock, probe, outbox = await paced(database)
    [stuck] = await outbox.claim(limit=10, lease=LEASE)
    clock.forward(10)
    retry = SendOutcome(OutcomeKind.RETRY)
    await outbox.settle(stuck, retry, clock() + timedelta(hours=1))
    clock.forward(200)
    details = (await probe.look())["sending"].details
    assert details["oldest_unsettled_seconds"] == 210
    clock.forward(4000)
    [again] = await outbox.claim(limit=10, lease=LEASE)
    await outbox.settle(again, SendOutcome(OutcomeKind.ACCEPTED, "out-0"), clock())
    found = (await probe.look())["sending"]
    # The second was due after 100 s.
    assert (found.status, found.reason) == ("degraded", "a message has been due for 4110 s")


async def paced(database: Database) -> tuple[ManualClock, SendingProbe, SqlOutboxStore]:
    """Six messages to a contact, one of which may go every 100 s: a probe, and their outbox."""
    clock = ManualClock(at(0))
    pace = RecipientPace(timedelta(seconds=100), burst=1)
    outbox = SqlOutboxStore(database, clock, replace(ANY_TIME, pace=pace))
    await receive(SqlIngestStore(database), clock=clock, replies=None)([inbound("SM1")], [])
    for number in range(6):
        await outbox.enqueue(new_message(f"Number {number}"))
    probe = SendingProbe(SqlMessageReader(database), clock=clock, registry=CollectorRegistry())
    return clock, probe, outbox


async def test_events_that_wait_and_dead_letters_are_seen(nats_server: NatsServer) -> None:
    """How many events wait, since when, and that some could not be processed."""
    clock = ManualClock()
    registry = CollectorRegistry()
    async with journal(nats_server) as client:
        progress = Progress(client, [DURABLE.name, "voice"], clock=clock, registry=registry)
        clock.time = now()
        assert (await progress.look())["processing"].status == "ok"
        await ensure_ingest_consumer(
            client.jetstream(),
            durable=DURABLE.name,
            subjects=DURABLE.subjects,
            ack_wait_seconds=30,
            max_deliver=-1,
        )
        await publish(client, message_event(1), message_event(2))
        async with asyncio.timeout(60):
            while (await progress.look())["processing"].details["waiting"] != 2:  # noqa: ASYNC110 - only NATS knows
                await asyncio.sleep(0.05)
        clock.time = now() + timedelta(seconds=100)
        found = (await progress.look())["processing"]
        assert found.status == "degraded"
        assert "the oldest event has waited for 1" in found.reason
        labels = {"consumer": DURABLE.name}
        assert registry.get_sample_value("switchboard_consumer_pending_events", labels) == 2
        age = registry.get_sample_value("switchboard_consumer_oldest_event_age_seconds", labels)
        assert age is not None
        assert 99 < age < 160
        await client.jetstream().publish("dead.whatsapp.message", b"", timeout=60)
        assert "switchboard dead list" in (await progress.look())["processing"].reason
        assert registry.get_sample_value("switchboard_dead_letters") == 1


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ProviderState.HEALTHY, "ok"),
        (ProviderState.UNTRIED, "ok"),
        (ProviderState.DEGRADED, "degraded"),
        (ProviderState.UNAVAILABLE, "down"),
    ],
)
def test_the_state_of_a_provider_is_its_status(state: ProviderState, status: str) -> None:
    """A provider that was not tried is no trouble."""
    assert provider_finding(replace(PROVIDER, state=state)).status == status


@pytest.mark.parametrize("frozen", [False, True], ids=["gone", "frozen"])
async def test_a_database_that_goes_is_down_until_it_is_back(
    postgres: PostgresServer, nats_server: NatsServer, frozen: bool
) -> None:
    """Within ten seconds, for those who watch gRPC's health too, and nothing else turns red."""
    response = health_pb2.HealthCheckResponse
    async with (
        forwarding(postgres.migrated_database()) as way,
        open_database(way.url) as database,
        journal(nats_server) as client,
        served(database, client) as it,
    ):
        await it.components(database=pb.STATUS_OK, processing=pb.STATUS_OK)
        watching = it.standard.Watch(health_pb2.HealthCheckRequest())
        async with asyncio.timeout(90):
            assert (await watching.read()).status == response.SERVING
            if frozen:
                way.block()
            else:
                await way.stop()
            # Machines that run tests are busy: being late by this much is theirs.
            async with asyncio.timeout(10 + 10):
                assert (await watching.read()).status == response.NOT_SERVING
            # What can only be learnt from the database is looked at, too.
            found = await it.components(database=pb.STATUS_DOWN, sending=pb.STATUS_UNKNOWN)
            assert found["database"].reason in (
                "the database doesn't answer", "no answer within 1.5 s"
            )  # fmt: skip
            down = {name for name, one in found.items() if one.status == pb.STATUS_DOWN}
            # The provider of this test is down all along.
            assert down == {"database", "whatsapp_twilio"}
            if frozen:
                way.unblock()
            else:
                await way.start()
            assert (await watching.read()).status == response.SERVING
        watching.cancel()
