"""Faults of disks: full ones, and what a power cut leaves on them."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from tests.chaos import power
from tests.chaos.world import World


def can_trace() -> bool:
    """Whether `strace` is there."""
    return shutil.which("strace") is not None


def full_disk(whose: Callable[[World], Sequence[int]]) -> Callable[[World], Awaitable[None]]:
    """No file may be written, for some processes."""

    async def strike(world: World) -> None:
        limited = set(whose(world))
        await _limit(limited, "0")
        try:
            await world.hold(4, 15)
        finally:
            # Those that were started meanwhile have it from their parents.
            await _limit(limited | set(whose(world)), "unlimited")

    return strike


async def _limit(processes: Iterable[int], size: str) -> None:
    for process in processes:
        with contextlib.suppress(FileNotFoundError):
            owner = (await asyncio.to_thread(Path(f"/proc/{process}").stat)).st_uid
            # In the owner's name: PostgreSQL has a user of its own where tests are run by root.
            limiting = await asyncio.create_subprocess_exec(
                "prlimit", f"--pid={process}", f"--fsize={size}:unlimited", user=owner
            )
            await limiting.wait()


async def database_full(world: World) -> None:
    """No file may be written by PostgreSQL, which gives up when that holds for its log of writes.

    Whoever runs it starts it again then.
    """
    assert world.stack.postgres is not None
    await full_disk(postgres_processes)(world)
    await world.stack.postgres.start()


def messagings(world: World) -> list[int]:
    """The processes that write SQLite."""
    return [world.stack.process(name).pid for name in world.stack.messagings]


def postgres_processes(world: World) -> list[int]:
    """The processes that write PostgreSQL's files."""
    assert world.stack.postgres is not None
    return world.stack.postgres.processes()


async def spill_full(world: World) -> None:
    """NATS is away, and the spill can't be written either: nothing may be acknowledged."""
    world.stack.kill("NATS")
    try:
        await full_disk(lambda world: [world.stack.process(e).pid for e in world.stack.edges])(
            world
        )
    finally:
        world.stack.start("NATS")


async def nats_full(world: World) -> None:
    """Every write into a block of messages fails for want of room, until NATS starts anew.

    Go ends a process at the signal that comes with a file size limit, so the error is put into
    the call. NATS 2.15 takes no more messages for a stream once a write has failed.
    """
    enospc = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC", "-o", "/dev/null")
    nats = world.stack.process("NATS")
    async with power.tracing(nats.pid, *enospc):
        await world.hold(4, 15)
    nats.send_signal(signal.SIGTERM)
    await world.stack.ended("NATS")
    world.stack.start("NATS")


async def power_cut(world: World) -> None:
    """NATS' machine loses its power; see `power`."""
    trace = world.stack.folder / "nats.trace"
    async with power.tracing(world.stack.process("NATS").pid, *power.TRACED, "-o", str(trace)):
        await asyncio.sleep(world.chance.uniform(2, 5))
        world.stack.kill("NATS")
    power.cut(power.synced(trace.read_text().splitlines()))
    world.stack.start("NATS")


async def power_cut_unsynced(world: World) -> None:
    """The same with NATS' own default of syncing every two minutes.

    Nobody reads meanwhile, so that what was acknowledged is in the journal alone.
    """
    config = world.stack.folder / "nats.conf"
    safe = await asyncio.to_thread(config.read_text)
    for name in world.stack.messagings:
        world.stack.kill(name)
    try:
        await _restart_nats(world, config, safe.replace("sync_interval: always", ""))
        for edge in world.stack.edges:
            await world.stack.has_journal(edge)
        await power_cut(world)
        await world.stack.ready("NATS")
    finally:
        await _restart_nats(world, config, safe)
        for name in world.stack.messagings:
            world.stack.start(name)


async def _restart_nats(world: World, config: Path, content: str) -> None:
    world.stack.process("NATS").send_signal(signal.SIGTERM)
    await world.stack.ended("NATS")
    await asyncio.to_thread(config.write_text, content)
    world.stack.start("NATS")
    await world.stack.ready("NATS")
