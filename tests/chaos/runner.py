"""Rounds: load, a fault in the middle of it, recovery, and the checks."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.callers import AT_ONCE, Callers
from tests.chaos.checker import Checker
from tests.chaos.fault import Fault
from tests.chaos.load import Load
from tests.chaos.stack import ChaosStack, DatabaseKind, running_chaos_stack
from tests.chaos.watcher import Watcher
from tests.chaos.world import Size, World

RECOVERY_SECONDS = 10.0
_SETTLE_SECONDS = 120.0
_LOAD_AT_MOST = 5
_LOAD_SIDE_BY_SIDE = 8


@dataclass
class Strike:
    """One fault.

    Attributes:
        events: Acknowledged while it lasted, until recovery.
        sends: Asked for meanwhile.
        calls: Begun meanwhile.
        failures: Requests that weren't answered with a 2xx meanwhile; how, in `failed_how`.
        seconds: How long it took, recovery included.
        recovery_seconds: From the fault's end until a new message had come in, was stored, and
            an answer had gone out to Twilio; of faults of calls until a caller was answered, too.
        recovery_processor_seconds: What the system used of the processors for that, by service:
            where others use the machine, this says more than the time.
        load: Processes that wanted a core, for each core, from 1 to 5.
        broken: Promises that were broken by then.
    """

    fault: str
    events: int = 0
    sends: int = 0
    calls: int = 0
    failures: int = 0
    failed_how: list[str] = field(default_factory=list)
    seconds: float = 0
    recovery_seconds: float = 0
    recovery_processor_seconds: dict[str, float] = field(default_factory=dict)
    load: float = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        calls = f" {self.calls} calls," if self.calls else ""
        return (
            f"{self.fault}: {self.events} events acknowledged, {self.sends} sends,{calls}"
            f" {self.failures} requests unanswered ({', '.join(self.failed_how) or 'none'}),"
            f" recovered in {self.recovery_seconds:.1f} s"
            f" ({sum(self.recovery_processor_seconds.values()):.1f} s of a processor)"
        )


@dataclass
class Round:
    """Faults one after the other, and what they came to.

    Attributes:
        settle_seconds: From the load's end until nothing was on its way any more.
        last: What was the last to be on its way.
        lost, doubled: How many things that were acknowledged or sent.
        broken: Promises that were broken at the end.
        shown: What was lost where that was to be shown.
    """

    number: int
    database: DatabaseKind
    strikes: list[Strike] = field(default_factory=list)
    events: int = 0
    sends: int = 0
    requests: int = 0
    settle_seconds: float = 0
    last: str = ""
    memory_mib: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """All promises that were broken."""
        return [*(w for one in self.strikes for w in one.broken), *self.broken]

    def __str__(self) -> str:
        return (
            f"round {self.number}, {self.database}: {self.events} events acknowledged,"
            f" {self.sends} sends, settled in {self.settle_seconds:.1f} s"
            f" (last: {self.last or 'nothing'})"
        )


class _NoRecoveryError(Exception):
    """The system doesn't do its work again."""


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

    async def run(
        self, faults: Sequence[Fault], number: int, say: Callable[[str], object] = str
    ) -> Round:
        """Faults one after the other under load, and the checks once all has settled.

        Args:
            say: Told what each fault came to.
        """
        # Of its own, so that one round can be run again alone.
        chance = random.Random(f"{self._seed}:{','.join(one.name for one in faults)}:{number}")
        done = Round(number, self._database)
        await self._reset_twilio()
        health = self._stack.health if self._stack.healths else ""
        calls = any(fault.calls for fault in faults)
        await asyncio.to_thread(self._checker.calls.begin)
        async with (
            Load(self._stack.api, chance, health=health, rate=self._rate) as load,
            Callers(self._stack.sandbox, chance, at_once=AT_ONCE if calls else 0) as callers,
        ):
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as running:
                running.create_task(load.run(stop))
                running.create_task(callers.run(stop))
                for fault in faults:
                    await asyncio.sleep(chance.uniform(0.5, 1 if self._size == "short" else 3))
                    done.strikes.append(await self._strike(fault, load, callers, chance))
                    say(str(done.strikes[-1]))
                await asyncio.sleep(1)
                stop.set()
            done.settle_seconds, left = await self._checker.settle(_SETTLE_SECONDS * _load())
            done.last = self._checker.last
            if left:
                done.broken.append(f"not settled: {left}")
            ledger = load.ledger
            found = await self._checker.violations(ledger)
        to_lose = any(fault.loses for fault in faults)
        done.shown = [str(one) for one in found if one.lost and to_lose]
        done.broken += [str(one) for one in found if not (one.lost and to_lose)]
        if to_lose and not done.shown:
            done.broken.append("nothing was lost, where something should have been")
        done.lost = sum(len(one.by) for one in found if one.lost)
        done.doubled = sum(len(one.by) for one in found if one.doubled)
        done.events, done.sends = len(ledger.acknowledged), len(ledger.sends)
        done.requests = ledger.requests
        done.memory_mib = self._stack.memory_mib()
        return done

    async def _strike(
        self, fault: Fault, load: Load, callers: Callers, chance: random.Random
    ) -> Strike:
        done = Strike(fault.name)
        ledger = load.ledger
        events, failures = len(ledger.acknowledged), len(ledger.failures)
        sends, calls, began = len(ledger.sends), callers.begun, time.monotonic()
        try:
            await fault.strike(World(self._stack, chance, self._size))
            used = self._stack.processor_seconds()
            done.recovery_seconds = await self._recover(load, callers if fault.calls else None)
            done.recovery_processor_seconds = {
                name: max(0.0, seconds - used.get(name, 0.0))
                for name, seconds in self._stack.processor_seconds().items()
            }
        except _NoRecoveryError as error:
            done.broken.append(f"{fault.name}: no recovery, {error}")
        except Exception as error:  # noqa: BLE001 - Whatever it is, the others have their turn.
            done.broken.append(f"{fault.name}: {error!r}")
        done.seconds = time.monotonic() - began
        done.events = len(ledger.acknowledged) - events
        done.sends, done.calls = len(ledger.sends) - sends, callers.begun - calls
        failed = ledger.failures[failures:]
        done.failures, done.failed_how = len(failed), sorted(set(failed))
        alone = len(self._stack.messagings) == 1
        if fault.spares_requests and failed and not (fault.needs_replicas and alone):
            done.broken.append(f"{fault.name}: requests failed: {', '.join(done.failed_how)}")
        done.load = _load()
        if done.recovery_seconds > RECOVERY_SECONDS * done.load:
            done.broken.append(f"{fault.name}: recovery took {done.recovery_seconds:.0f} s")
        return done

    async def _recover(self, load: Load, callers: Callers | None) -> float:
        """Seconds until a message comes in, is stored, and one goes out to whoever wrote.

        Where callers are there, until one of them who asks something is answered, too.

        Raises:
            _NoRecoveryError: It takes too long; the text says what.
        """
        self._probes += 1
        probe = f"whatsapp:+9725099{self._probes:05d}"
        began = time.monotonic()
        waits = "a message isn't acknowledged"
        try:
            async with asyncio.timeout(30 * _load()):
                event = await load.message(probe, "Are you there?")
                while not event.acknowledged:
                    await asyncio.sleep(0.1)
                    event = await load.message(probe, "Are you there?")
                waits = "a message isn't stored"
                sid = event.key.partition(":")[2]
                await _until(lambda: self._checker.stored(sid))
                waits = "a send isn't taken"
                send = await load.send(probe, f"Send to probe {self._seed} {self._probes}")
                waits = "a send isn't at Twilio"
                await _until(lambda: self._checker.received(probe, send.body))
                waits = "nobody who calls is answered"
                if callers is not None:
                    await _until(callers.is_answered)
        except TimeoutError:
            raise _NoRecoveryError(waits) from None
        return time.monotonic() - began

    async def _reset_twilio(self) -> None:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self._stack.sandbox}/sandbox/reset") as answer,
        ):
            answer.raise_for_status()


def _load() -> float:
    """By how much everything takes longer where others use the machine, too."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Other tests run beside it. The load average is late to say so, and in a container it may
        # never do. How soon all recovers on a machine of its own, `make chaos` shows.
        return _LOAD_SIDE_BY_SIDE
    return min(max(1, os.getloadavg()[0] / (os.cpu_count() or 1)), _LOAD_AT_MOST)


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
        tasks = [watching, asyncio.create_task(checker.calls.watch())]
        try:
            async with asyncio.timeout(30 * _load()):
                await watcher.begun.wait()
            async with Load(stack.api, random.Random(f"{seed} contacts")) as load:
                await load.introduce()
            if left := (await checker.settle(_SETTLE_SECONDS * _load()))[1]:
                raise RuntimeError(f"the stack doesn't come to rest: {left}")
            yield Rounds(stack, checker, database=database, seed=seed, size=size, rate=rate)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            checker.close()
