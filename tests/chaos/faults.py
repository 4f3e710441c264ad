"""The catalogue of faults: each brings one about, and returns once it is over."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import create_engine, text

from services.messaging.store.database import database_url
from tests.chaos import disks
from tests.chaos.clocks import clock_jump
from tests.chaos.fault import Fault, Strike
from tests.chaos.proxy import SOUND, Network
from tests.chaos.stack import ChaosStack
from tests.chaos.step_faults import edges, messagings, step_faults
from tests.chaos.twilio import twilio
from tests.chaos.world import World


async def _calm(world: World) -> None:
    await world.hold(3, 8)


def _killed(service: Callable[[ChaosStack], Sequence[str]]) -> Strike:
    async def strike(world: World) -> None:
        name = world.chance.choice(service(world.stack))
        world.stack.kill(name)
        await asyncio.sleep(world.chance.uniform(0, 2))
        world.stack.start(name)

    return strike


async def _all_killed(world: World) -> None:
    names = [*world.stack.edges, *world.stack.messagings, "NATS"]
    world.chance.shuffle(names)
    for name in names:
        world.stack.kill(name)
        await asyncio.sleep(world.chance.uniform(0, 0.3))
    world.chance.shuffle(names)
    for name in names:
        world.stack.start(name)


async def _frozen_nats(world: World) -> None:
    process = world.stack.process("NATS")
    process.send_signal(signal.SIGSTOP)
    try:
        await world.hold(6, 30)
    finally:
        process.send_signal(signal.SIGCONT)


async def _nats_away(world: World) -> None:
    world.stack.kill("NATS")
    await world.hold(5, float(os.environ.get("CHAOS_AWAY_SECONDS", "60")))
    world.stack.start("NATS")


def _terminated(
    service: Callable[[ChaosStack], Sequence[str]],
) -> Strike:
    async def strike(world: World) -> None:
        """As a rolling update does: the next only when the one before is back."""
        for name in service(world.stack):
            world.stack.process(name).send_signal(signal.SIGTERM)
            code = await world.stack.ended(name)
            if code != 0:
                raise RuntimeError(f"{name} ended with {code} after SIGTERM")
            await asyncio.sleep(world.chance.uniform(0, 1))
            world.stack.start(name)
            await world.stack.ready(name)

    return strike


async def _postgres_killed(world: World) -> None:
    assert world.stack.postgres is not None
    await world.stack.postgres.kill()
    await asyncio.sleep(world.chance.uniform(0, 2))
    await world.stack.postgres.start()


async def _postgres_restarted(world: World) -> None:
    assert world.stack.postgres is not None
    await world.stack.postgres.stop()
    await world.hold(1, world.chance.uniform(0, 8))
    await world.stack.postgres.start()


async def _connections_killed(world: World) -> None:
    """Some of them, again and again."""
    engine = create_engine(database_url(world.stack.database_url, asynchronous=False))
    query = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5"
    )

    def kill() -> None:
        with engine.connect() as connection:
            connection.execute(query)

    try:
        for _ in range(world.chance.randint(2, 6)):
            await asyncio.to_thread(kill)
            await asyncio.sleep(world.chance.uniform(0, 1))
    finally:
        engine.dispose()


async def _lock_held(world: World) -> None:
    """Somebody writes for a long time and doesn't end the transaction."""
    engine = create_engine(database_url(world.stack.database_url, asynchronous=False))
    table = world.chance.choice(["messages", "conversations", "contacts", "outbox"])
    postgres = world.stack.postgres is not None

    def lock() -> Any:
        connection = engine.connect()
        if postgres:
            connection.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        else:
            connection.exec_driver_sql("PRAGMA busy_timeout=30000")
            connection.exec_driver_sql("COMMIT") if connection.connection.in_transaction else None
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        return connection

    connection = await asyncio.to_thread(lock)
    try:
        await world.hold(6, 60)
    finally:
        await asyncio.to_thread(connection.close)
        engine.dispose()


def _network(*ways: str, short: float = 5, long: float = 15, **how: Any) -> Strike:
    async def strike(world: World) -> None:
        there = [way for way in ways if way in world.stack.ways]
        proxy = world.stack.ways[world.chance.choice(there)]
        await proxy.become(Network(**how))
        try:
            await world.hold(short, long)
        finally:
            await proxy.become(SOUND)
            if how.get("silent") or how.get("shred"):
                await proxy.drop()

    return strike


_WAYS = ("twilio-webhook", "webhook-nats", "messaging-nats", "webhook-messaging",
         "messaging-twilio", "messaging-database")  # fmt: skip

FAULTS = {
    fault.name: fault
    for fault in (
        Fault("none", "nothing goes wrong", _calm, spares_requests=True),
        Fault("kill-webhook", "kill -9 of an edge", _killed(edges)),
        Fault("kill-messaging", "kill -9 of a messaging", _killed(messagings)),
        Fault("kill-nats", "kill -9 of NATS", _killed(lambda stack: ["NATS"])),
        Fault("kill-all", "kill -9 of all of them", _all_killed),
        Fault(
            "kill-database", "kill -9 of PostgreSQL", _postgres_killed, database="postgresql"
        ),
        Fault("freeze-nats", "SIGSTOP of NATS, 30 s", _frozen_nats),
        Fault("nats-away", "NATS away for a minute or more", _nats_away),
        Fault(
            "restart-database",
            "PostgreSQL stopped and started",
            _postgres_restarted,
            database="postgresql",
        ),
        Fault(
            "kill-connections",
            "database connections killed",
            _connections_killed,
            database="postgresql",
        ),
        Fault("hold-lock", "a lock held for 60 s", _lock_held),
        Fault(
            "term-webhook",
            "SIGTERM of one edge after the other",
            _terminated(edges),
            spares_requests=True,
        ),
        Fault(
            "term-messaging",
            "SIGTERM of one messaging after the other",
            _terminated(messagings),
            spares_requests=True,
            needs_replicas=True,
        ),
        Fault(
            "term-health",
            "SIGTERM of one health after the other",
            _terminated(lambda stack: stack.healths),
            spares_requests=True,
            needs_replicas=True,
        ),
        *step_faults(),
        Fault("clock-forward", "the machine's clock goes ahead by minutes or hours, and back",
              clock_jump(1, together=True)),
        Fault("clock-back", "the machine's clock goes back, and ahead again",
              clock_jump(-1, together=True)),
        Fault("clock-forward-one", "the same with one process's clock",
              clock_jump(1, together=False)),
        Fault("clock-back-one", "the same with one process's clock",
              clock_jump(-1, together=False)),
        Fault("net-slow", "a network slow by up to 0.3 s a piece",
              _network(*_WAYS, delay_seconds=0.3)),
        Fault("net-cut", "a network whose connections end", _network(*_WAYS, ends_after=20_000)),
        Fault("net-reset", "a network whose connections are reset",
              _network(*_WAYS, ends_after=20_000, reset=True)),
        Fault("net-bytes", "a network byte by byte", _network(*_WAYS, shred=True)),
        Fault("net-silent", "a network that swallows all", _network(*_WAYS, silent=True)),
        Fault("net-gone", "a network without connections", _network(*_WAYS, refuses=True)),
        Fault("full-spill", "NATS away, and no disk for the spill", disks.spill_full),
        Fault(
            "full-database",
            "no disk for PostgreSQL",
            disks.database_full,
            database="postgresql",
        ),
        Fault("full-sqlite", "no disk for SQLite", disks.full_disk(disks.messagings),
              database="sqlite"),
        Fault("full-nats", "no disk for NATS", disks.nats_full, traces=True),
        Fault("power-cut", "power cut of NATS' machine", disks.power_cut, traces=True),
        Fault("power-cut-unsynced", "the same, synced every two minutes as by default",
              disks.power_cut_unsynced, loses=True, traces=True),
        Fault("twilio-hangs", "Twilio accepts and says nothing", twilio(hang={"accept": True})),
        Fault("twilio-silent", "Twilio neither accepts nor answers", twilio(hang={})),
        Fault("twilio-resets", "Twilio accepts and resets", twilio(reset_after_accept={})),
        Fault("twilio-500", "Twilio accepts and says 500", twilio(error_500_after_accept={})),
        Fault("twilio-429", "Twilio says 429", twilio(rate_limited={"retry_after": 1})),
        Fault("twilio-early", "reports before the answer, twice",
              twilio(early_callbacks={"statuses": ["sent", "delivered"]},
                      duplicate_callbacks={"copies": 2})),
        Fault("twilio-permuted", "reports twice and in another order",
              twilio(reordered_callbacks={"order": ["read", "sent", "delivered"]},
                      duplicate_callbacks={"copies": 2})),
        Fault("twilio-fails", "messages that fail at Twilio",
              twilio(failed_messages={"status": "undelivered", "error_code": 63016},
                      reordered_callbacks={})),
    )
}  # fmt: skip
