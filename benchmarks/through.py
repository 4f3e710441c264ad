"""The whole system under load, from webhook to database and from webhook to answer.

`python -m benchmarks.through` starts the broker, the services and the sandbox as processes of their
own, on SQLite and on PostgreSQL, and prints

- the highest rate at which what is acknowledged is also stored: requests come at even intervals,
  and what waits for the consumer must stay below one second's worth. As a ratio to what the edge
  acknowledges, in the same stack, when it gets as much as it can take;
- from webhook to the answer's arrival at Twilio, with a model that answers at once and no pause
  for a burst: the median and the 99th percentile at half of saturation, which is the highest rate
  of even arrivals with which the answers keep up. Every message is a new contact's.

Everything shares the machine's cores, load generator and sandbox included; how much of them each
part takes is among the details. With `--seconds 600` the rate is held for ten minutes.
"""

import argparse
import asyncio
import itertools
import math
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import nats
import uvloop

from benchmarks import load, results
from benchmarks.processes import processor_seconds
from benchmarks.results import Result, say
from benchmarks.webhooks import Webhooks
from services.common.journal.streams import INGEST_STREAM
from services.messaging.consumers.ingest import DURABLE
from tests.support.databases import PostgresServer
from tests.support.stack import RunningStack, running_stack

_TOKEN = "sandbox-auth-token"
_CONTACTS = 500
_STEP = 0.05
_LAG_SECONDS = 1.0
_LOST_SECONDS = 5.0
"""With so much waiting a rate is not tried to the end."""

_MINUTE = 60
_DRAIN_SECONDS = 300.0
_VARIABLES = {
    "LOG_LEVEL": "warning",
    "JOURNAL_MAX_BYTES": str(32 * 1024**3),
    "SENDER_MESSAGES_PER_SECOND": "10000",
    # The pretend vendors answer at once.
    "SANDBOX_ANSWER": "0",
    "SANDBOX_ANSWER_WORD": "0",
}
_BUNDLED = re.compile(r"^switchboard_bundled_events (\S+)$", re.MULTILINE)
# Every message waits for an answer, as it would, and none gets one while we measure.
_STORING = {"ASSISTANT_PAUSE_SECONDS": "86400"}
_ANSWERING = {"ASSISTANT_PAUSE_SECONDS": "0"}


@dataclass
class _Held:
    """What a rate did to the system.

    Attributes:
        lags: Events that the consumer had still to store, or messages that had still to be
            answered, second by second.
        cores: How many each part kept busy.
    """

    rate: float
    load: load.Steady
    lags: list[int]
    cores: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether everything was acknowledged in time and the lag stayed small."""
        end = self.lags[-max(3, len(self.lags) // 10) :]
        return (
            set(self.load.statuses) == {b"200"}
            and statistics.mean(end) < self.rate * _LAG_SECONDS
            and _quantile(self.load.took, 0.99) < _LAG_SECONDS
        )


class _System:
    """A running stack and what is asked of it."""

    def __init__(self, stack: RunningStack, postmaster: int | None) -> None:
        self._stack = stack
        self._postmaster = postmaster
        origin = stack.addresses.webhook
        self._port = urlsplit(origin).port or 0
        self._webhooks = Webhooks(origin, _TOKEN)
        self._numbers = itertools.count()

    def known(self) -> Iterator[bytes]:
        """Messages of the same contacts, again and again."""
        for number in self._numbers:
            yield self._webhooks.message(number, f"97250{number % _CONTACTS:07d}")

    def _new(self, first: int) -> Iterator[bytes]:
        """Messages of contacts who have never written before, numbered from `first`."""
        for contact in itertools.count(first):
            yield self._webhooks.message(next(self._numbers), _new_contact(contact))

    async def saturated(self, seconds: float) -> float:
        """Acknowledged a second when the edge has always something to do."""
        result = await load.run(self._port, self.known(), connections=64, seconds=seconds)
        if set(result.statuses) != {b"200"}:
            raise SystemExit(f"the edge answered {dict(result.statuses)}")
        return result.per_second

    async def hold(self, rate: float, seconds: float) -> _Held:
        """Send messages of known contacts at a rate, looking every second how many events wait."""
        return await self._hold(self.known(), rate, seconds, self.lag, at_most=rate * _LOST_SECONDS)

    async def hold_new(self, rate: float, seconds: float, first: int) -> _Held:
        """Likewise messages of new contacts, and look how many wait for an answer."""
        began = time.perf_counter()

        async def waiting() -> int:
            due = first + int(rate * min(time.perf_counter() - began, seconds))
            return max(due - await asyncio.to_thread(self._answered), 0)

        return await self._hold(
            self._new(first), rate, seconds, waiting, at_most=rate * _LOST_SECONDS
        )

    async def _hold(
        self,
        requests: Iterator[bytes],
        rate: float,
        seconds: float,
        waiting: Callable[[], Awaitable[int]],
        *,
        at_most: float,
    ) -> _Held:
        lags: list[int] = []
        ends = asyncio.Event()
        before, began = self._used(), time.perf_counter()
        looking = asyncio.create_task(_look(waiting, lags, at_most, ends))
        result = await load.steady(
            self._port, requests, per_second=rate, seconds=seconds, ends=ends
        )
        took = time.perf_counter() - began
        looking.cancel()
        lags.append(await waiting())
        cores = {name: (used - before[name]) / took for name, used in self._used().items()}
        return _Held(rate, result, lags, cores)

    async def lag(self) -> int:
        """Events that were acknowledged and aren't known to be stored."""
        bundled = await asyncio.to_thread(self._bundled)
        info = await self.js.consumer_info(INGEST_STREAM, DURABLE.name)
        return bundled + (info.num_pending or 0) + (info.num_ack_pending or 0)

    def _bundled(self) -> int:
        port = self._stack.metrics_ports["webhook"]
        found = _BUNDLED.search(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text)
        assert found is not None
        return int(float(found[1]))

    async def drained(self) -> float:
        """Seconds until everything is stored."""
        began = time.perf_counter()
        while await self.lag():
            if time.perf_counter() - began > _DRAIN_SECONDS:
                raise SystemExit("the consumer doesn't get to an end")
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    async def answered(self, count: int) -> None:
        """Wait until so many answers are at Twilio."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._answered() < count:
            if time.monotonic() > deadline:
                raise SystemExit("not every message was answered")
            await asyncio.sleep(0.1)

    def _answered(self) -> int:
        return int(self._stack.sandbox.get("/sandbox/health").json()["messages"])

    def answers(self) -> dict[str, float]:
        """When Twilio got the answer to each contact, in Unix time."""
        found: list[dict[str, Any]] = self._stack.sandbox.get("/sandbox/messages").json()
        return {
            one["recipient"].removeprefix("whatsapp:+"): datetime.fromisoformat(
                one["created_at"]
            ).timestamp()
            for one in found
        }

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._stack.addresses.nats_url)
        self.js = self._client.jetstream()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def _used(self) -> dict[str, float]:
        used = {**self._stack.processor_seconds(), "load generator": time.process_time()}
        if self._postmaster is not None:
            used["PostgreSQL"] = processor_seconds(self._postmaster)
        return used


def _new_contact(number: int) -> str:
    return f"97252{number:07d}"


async def _storing(system: _System, dialect: str, options: argparse.Namespace) -> list[Result]:
    """The highest rate that holds."""
    async with system:
        await system.saturated(2)
        await system.drained()
        edge = await system.saturated(options.saturate)
        left = await system.lag()
        drain = await system.drained()
        say(f"{dialect}: the edge takes {edge:,.0f}/s; {left:,} to store, which took {drain:.1f} s")
        stored = 1 - left / (edge * options.saturate)
        # The first rate that is tried is above what was stored meanwhile.
        share = min(1.0, _STEP * (math.ceil(stored / _STEP) + 1))
        while share > _STEP:
            for seconds in sorted({min(options.search, options.seconds), options.seconds}):
                tried = await system.hold(share * edge, seconds)
                say(f"{dialect}: {tried.rate:,.0f}/s for {seconds:.0f} s: {_lag(tried)}")
                await system.drained()
                if not tried.held:
                    break
            else:
                return [_kept(dialect, tried, share, edge, options.seconds)]
            share -= _STEP
        raise SystemExit("no rate holds")


def _kept(dialect: str, held: _Held, share: float, edge: float, seconds: float) -> Result:
    acknowledged = _quantile(held.load.took, 0.99)
    return Result(
        f"stored as it comes, {seconds:.0f} s, {dialect}",
        [share],
        against="what the edge takes in the same stack",
        wanted="1.0",
        details=f"{held.rate:,.0f}/s, {edge:,.0f}/s; {_lag(held)}; acknowledged in "
        f"{1000 * acknowledged:.0f} ms (p99); cores: {_cores(held)}",
    )


async def _answering(system: _System, dialect: str, options: argparse.Namespace) -> list[Result]:
    """From webhook to answer, at half of the highest rate that holds."""
    async with system:
        count = options.backlog
        # Ten a second, for what is made at its first use.
        await system.hold_new(10, 3, 0)
        first = 30
        await system.answered(first)
        await system.hold_new(1000, count / 1000, first)
        await system.answered(first + count)
        at = system.answers()
        came = sorted(at[_new_contact(number)] for number in range(first, first + count))
        backlog = (count // 2) / (came[3 * count // 4] - came[count // 4])
        say(f"{dialect}: {backlog:.0f} answers/s come out of a backlog")
        first += count
        saturation, first = await _saturation(
            system, dialect, backlog, first, options.answer_search
        )
        half, p50, p99 = saturation / 2, [], []
        for _ in range(options.rounds):
            held = await system.hold_new(half, options.answer_seconds, first)
            total = held.load.statuses.total()
            await system.answered(first + total)
            at = system.answers()
            took = [
                at[_new_contact(first + number)] - held.load.began - number / half
                for number in range(total)
            ]
            first += total
            p50.append(1000 * statistics.median(took))
            p99.append(1000 * _quantile(took, 0.99))
            say(f"{dialect}: {half:.0f}/s answered in {p50[-1]:.0f} ms, p99 {p99[-1]:.0f} ms")
        details = (
            f"at {half:.0f}/s, half of {saturation:.0f}/s; {backlog:.0f}/s come out of a backlog; "
            f"cores: {_cores(held)}"
        )
        return [
            Result(f"webhook to answer, p50, {dialect}", p50, unit="ms", wanted="below 50"),
            Result(
                f"webhook to answer, p99, {dialect}",
                p99,
                unit="ms",
                wanted="below 200",
                details=details,
            ),
        ]


async def _saturation(
    system: _System, dialect: str, backlog: float, first: int, seconds: float
) -> tuple[float, int]:
    """The highest rate with which answers keep up, and the number of the next new contact."""
    highest, share, step = 0.0, 1.0, _STEP
    while share > _STEP:
        tried = await system.hold_new(share * backlog, seconds, first)
        say(f"{dialect}: {tried.rate:.0f}/s for {seconds:.0f} s: {_lag(tried)}")
        first += tried.load.statuses.total()
        await system.answered(first)
        await system.drained()
        if tried.held:
            highest = tried.rate
        elif not highest:
            # The first was too much: the highest that holds is the next that does.
            step = -_STEP
        if highest and (step < 0 or not tried.held):
            return highest, first
        share += step
    raise SystemExit("no rate is answered")


async def _look(
    waiting: Callable[[], Awaitable[int]], lags: list[int], at_most: float, ends: asyncio.Event
) -> None:
    while True:
        await asyncio.sleep(1)
        lags.append(await waiting())
        if lags[-1] > at_most:
            ends.set()


def _lag(held: _Held) -> str:
    found = f"at most {max(held.lags):,} waited, {held.lags[-1]:,} at the end"
    if len(held.lags) < 2 * _MINUTE:
        return found
    first, last = (statistics.mean(part) for part in (held.lags[:_MINUTE], held.lags[-_MINUTE:]))
    return f"{found}; on average {first:,.0f} in the first minute, {last:,.0f} in the last"


def _cores(held: _Held) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in held.cores.items() if share >= 0.005)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@contextmanager
def _database(dialect: str, folder: Path) -> Iterator[tuple[dict[str, str], int | None]]:
    """What the services are told of it, and the process that serves it, if there is one."""
    if dialect == "sqlite":
        yield {}, None
        return
    server = PostgresServer(folder / "postgres")
    try:
        with server.database() as url:
            postmaster = (folder / "postgres" / "postmaster.pid").read_text().split()[0]
            yield {"DATABASE_URL": url}, int(postmaster)
    finally:
        server.stop()


def measure(options: argparse.Namespace) -> list[Result]:
    """Each on a system of its own."""
    found = []
    for dialect in options.databases:
        for more, measured in ((_STORING, _storing), (_ANSWERING, _answering)):
            with (
                tempfile.TemporaryDirectory(prefix="bench") as folder,
                _database(dialect, Path(folder)) as (database, postmaster),
                running_stack(Path(folder), {**_VARIABLES, **more, **database}) as stack,
            ):
                found += uvloop.run(measured(_System(stack, postmaster), dialect, options))
    return found


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=20, help="how long a rate must hold")
    parser.add_argument("--search", type=float, default=10, help="how long one is tried before")
    parser.add_argument("--saturate", type=float, default=8)
    parser.add_argument("--backlog", type=int, default=400, help="messages to be answered")
    # Above saturation answers fall behind by a twentieth of a second in each, at the steps taken.
    parser.add_argument(
        "--answer-search", type=float, default=30, help="how long answers must keep up with a rate"
    )
    parser.add_argument("--answer-seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3, help="of answers")
    quick = {"seconds": 5, "search": 5, "saturate": 3, "backlog": 100, "rounds": 1}
    results.run(parser, measure, quick={**quick, "answer_search": 5, "answer_seconds": 5})


if __name__ == "__main__":
    main()
