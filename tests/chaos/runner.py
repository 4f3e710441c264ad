"""Rounds: load, a fault in the middle of it, recovery, and the checks."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.checker import LOST, Checker
from tests.chaos.faults import Fault
from tests.chaos.load import Load
from tests.chaos.stack import ChaosStack, DatabaseKind, running_chaos_stack
from tests.chaos.watcher import Watcher
from tests.chaos.world import Size, World

RECOVERY_SECONDS = 10.0
BUSY_MACHINE = 2.0
"""What machines that do other things too may take longer by."""

_SETTLE_SECONDS = 120.0


@dataclass
class Round:
    """What one round came to.

    Attributes:
        recovery_seconds: From the fault's end until a new message had come in, was stored, and
            an answer had gone out to Twilio.
        settle_seconds: From the load's end until nothing was on its way any more.
        broken: Promises that were broken.
        shown: What was lost where that was to be shown.
    """

    fault: str
    number: int
    database: DatabaseKind
    events: int = 0
    sends: int = 0
    requests: int = 0
    failures: int = 0
    failed_how: list[str] = field(default_factory=list)
    recovery_seconds: float = 0
    settle_seconds: float = 0
    memory_mib: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.fault} {self.number}, {self.database}: {self.events} events acknowledged,"
            f" {self.sends} sends, {self.failures} requests unanswered, recovered in"
            f" {self.recovery_seconds:.1f} s, settled in {self.settle_seconds:.1f} s"
        )


class Rounds:
    """Runs rounds against one stack."""

    def __init__(
        self,
        stack: ChaosStack,
        checker: Checker,
        *,
        database: DatabaseKind,
        seed: int,
        size: Size,
        rate: float,
    ) -> None:
        self._stack = stack
        self._checker = checker
        self._database = database
        self._seed = seed
        self._size = size
        self._rate = rate
        self._probes = 0

    async def run(self, fault: Fault, number: int) -> Round:
        """One round of a fault."""
        # Of its own, so that one round can be run again alone.
        chance = random.Random(f"{self._seed}:{fault.name}:{number}")
        done = Round(fault.name, number, self._database)
        await self._reset_twilio()
        async with Load(self._stack.api, chance, rate=self._rate) as load:
            stop = asyncio.Event()
            running = asyncio.create_task(load.run(stop))
            lead, tail = (1.0, 1.0) if self._size == "short" else (3.0, 3.0)
            await asyncio.sleep(chance.uniform(lead / 2, lead))
            try:
                await fault.strike(World(self._stack, chance, self._size))
                done.recovery_seconds = await self._recover(load)
            except (RuntimeError, TimeoutError) as error:
                done.broken.append(str(error) or "no recovery within a minute")
            await asyncio.sleep(tail)
            stop.set()
            await running
            done.settle_seconds, left = await self._checker.settle(_SETTLE_SECONDS)
            if left:
                done.broken.append(f"not settled: {left}")
            ledger = load.ledger
            done.broken += await self._checker.violations(ledger)
        if fault.loses:
            lost = [what for what in done.broken if what.startswith(LOST)]
            done.shown = lost
            done.broken = [what for what in done.broken if what not in lost]
            if not lost:
                done.broken.append("nothing was lost, where something should have been")
        if fault.spares_requests and ledger.failures:
            done.broken.append(f"requests failed: {ledger.failures[:3]}")
        if done.recovery_seconds > BUSY_MACHINE * RECOVERY_SECONDS:
            done.broken.append(f"recovery took {done.recovery_seconds:.0f} s")
        done.events, done.sends = len(ledger.acknowledged), len(ledger.sends)
        done.requests, done.failures = ledger.requests, len(ledger.failures)
        done.failed_how = sorted(set(ledger.failures))
        done.memory_mib = self._stack.memory_mib()
        return done

    async def _recover(self, load: Load) -> float:
        """Seconds until a message comes in, is stored, and one goes out to whoever wrote."""
        self._probes += 1
        probe = f"whatsapp:+9725099{self._probes:05d}"
        began = time.monotonic()
        async with asyncio.timeout(60):
            event = await load.message(probe, "Are you there?")
            while not event.acknowledged:
                await asyncio.sleep(0.1)
                event = await load.message(probe, "Are you there?")
            sid = event.key.partition(":")[2]
            await _until(lambda: self._checker.stored(sid))
            send = await load.send(probe, f"Send to probe {self._seed} {self._probes}")
            await _until(lambda: self._checker.received(probe, send.body))
        return time.monotonic() - began

    async def _reset_twilio(self) -> None:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self._stack.sandbox}/sandbox/reset") as answer,
        ):
            answer.raise_for_status()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - what is waited for has no event to tell
        await asyncio.sleep(0.05)


@asynccontextmanager
async def rounds(
    folder: Path, *, database: DatabaseKind, seed: int, size: Size, rate: float, replicas: int = 2
) -> AsyncIterator[Rounds]:
    """A stack that rounds can be run on."""
    async with running_chaos_stack(
        folder, database=database, replicas=replicas, chance=random.Random(seed)
    ) as stack:
        watcher = Watcher(stack.api)
        watching = asyncio.create_task(watcher.run())
        checker = Checker(stack, watcher)
        try:
            async with asyncio.timeout(30):
                await watcher.begun.wait()
            async with Load(stack.api, random.Random(f"{seed} contacts")) as load:
                await load.introduce()
            if left := (await checker.settle(_SETTLE_SECONDS))[1]:
                raise RuntimeError(f"the stack doesn't come to rest: {left}")
            yield Rounds(stack, checker, database=database, seed=seed, size=size, rate=rate)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            checker.close()
