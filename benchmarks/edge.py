"""The edge, verified and fsynced, against two yardsticks that store nothing.

`python -m benchmarks.edge` prints ratios of requests per second, all from one run: the edge
against a FastAPI route that only reads the body, and against Flask with the Twilio SDK's
validator. Each server is one worker pinned to the first core; the load generator and NATS share
the second. Afterwards every acknowledged event must stand in the journal. The processor time that
a request takes the server is shown too: it depends less on what else the machine does.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
import uvloop

from benchmarks import load, results
from benchmarks.processes import processor_seconds
from benchmarks.results import Result, say
from benchmarks.webhooks import Webhooks
from services.common.journal.streams import INGEST_STREAM, INTAKE_STREAM, ensure_streams
from tests.support.nats import NatsServer
from tests.support.ports import free_port

_ORIGIN = "https://switchboard.example.com"
_TOKEN = "0123456789abcdef0123456789abcdef"
_CORES = sorted(os.sched_getaffinity(0))
_SERVERS = ("edge", "fastapi", "flask")
_YARDSTICKS = {"fastapi": "a FastAPI no-op", "flask": "Flask with the SDK's validator"}
_WANTED = {"fastapi": "at least 1.0, if possible 1.5", "flask": "at least 5"}


@dataclass(frozen=True)
class Measurement:
    """One run of one server."""

    per_second: float
    processor_us: float
    """Microseconds of processor time a request, the system's share included."""


@contextlib.contextmanager
def _server(name: str, nats_url: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Yields the server's port and process."""
    port = free_port()
    internal = free_port() if name == "edge" else port
    command = {
        "edge": [sys.executable, "-m", "services.webhook"],
        "fastapi": [sys.executable, "-m", "benchmarks.noop_fastapi", str(port)],
        "flask": [
            *(sys.executable, "-m", "gunicorn", "benchmarks.validating_flask:app"),
            *("--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8"),
            *("--keep-alive", "30", "--worker-connections", "1000", "--log-level", "warning"),
        ],
    }[name]
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            "PUBLIC_HOST": _ORIGIN,
            "TWILIO_AUTH_TOKEN": _TOKEN,
            "NATS_URL": nats_url,
            "WEBHOOK_PORT": str(port),
            "METRICS_PORT": str(internal),
            "LOG_LEVEL": "warning",
            "SPILL_PATH": str(folder / "spill.db"),
        },
        preexec_fn=lambda: os.sched_setaffinity(0, _CORES[:1]),
    )
    try:
        for _ in range(100):
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"http://127.0.0.1:{internal}/internal/health")
                if name != "edge" or answer.json()["status"] == "ok":
                    break
            asyncio.run(asyncio.sleep(0.1))
        else:
            raise RuntimeError(f"{name} did not start")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _create_journal(url: str) -> None:
    # The edge would do it too, but says that it is ready a moment before.
    client = await nats.connect(url)
    try:
        await ensure_streams(client.jetstream(), replicas=1, max_bytes=1 << 30)
    finally:
        await client.close()


async def _journaled(url: str) -> int:
    """How many events are in the journal, once none waits in a bundle."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        for _ in range(500):
            if not (await js.stream_info(INTAKE_STREAM)).state.messages:
                break
            await asyncio.sleep(0.01)
        return (await js.stream_info(INGEST_STREAM)).state.messages
    finally:
        await client.close()


def _measured(
    name: str, connections: int, seconds: float, requests: Iterator[bytes]
) -> Measurement:
    """Load one server.

    Raises:
        RuntimeError: It answered something else than 200, or an acknowledged event is not in
            the journal.
    """
    with tempfile.TemporaryDirectory() as folder:
        broker = NatsServer(Path(folder) / "nats")
        broker.start()
        try:
            asyncio.run(_create_journal(broker.url))
            with _server(name, broker.url, Path(folder)) as (port, process):
                before = processor_seconds(process)
                result = uvloop.run(
                    load.run(port, requests, connections=connections, seconds=seconds)
                )
                used = processor_seconds(process) - before
            if set(result.statuses) != {b"200"}:
                raise RuntimeError(f"{name} answered {dict(result.statuses)}")
            if name == "edge":
                journaled = asyncio.run(_journaled(broker.url))
                if journaled != result.statuses.total():
                    raise RuntimeError(
                        f"acknowledged {result.statuses.total()}, in the journal {journaled}"
                    )
        finally:
            broker.stop()
    return Measurement(result.per_second, used / result.statuses.total() * 1e6)


def measure(options: argparse.Namespace) -> list[Result]:
    """Measure in turns, so that a busy moment of the machine hits all alike."""
    os.sched_setaffinity(0, _CORES[1:2] or _CORES)
    webhooks = Webhooks(_ORIGIN, _TOKEN)
    prepared = [
        webhooks.message(number, "972501234567") for number in range(int(options.seconds * 30_000))
    ]
    found = []
    for connections in options.connections:
        runs: dict[str, list[Measurement]] = {name: [] for name in options.servers}
        for _ in range(options.rounds):
            for name in options.servers:
                runs[name].append(_measured(name, connections, options.seconds, iter(prepared)))
                run = runs[name][-1]
                say(
                    f"{connections} connections, {name}: {run.per_second:,.0f} requests/s,"
                    f" {run.processor_us:.0f} µs of processor time each"
                )
        found += [
            _compared(connections, runs["edge"], other, runs[other])
            for other in options.servers
            if other != "edge" and "edge" in runs
        ]
    return found


def _compared(
    connections: int, edge: list[Measurement], name: str, other: list[Measurement]
) -> Result:
    def median(of: str) -> tuple[float, float]:
        ours, theirs = ([getattr(run, of) for run in runs] for runs in (edge, other))
        return statistics.median(ours), statistics.median(theirs)

    ours, theirs = median("per_second")
    ours_us, theirs_us = median("processor_us")
    return Result(
        f"requests, {connections} connections",
        [one.per_second / two.per_second for one, two in zip(edge, other, strict=True)],
        against=_YARDSTICKS[name],
        wanted=_WANTED[name],
        details=f"{ours:,.0f}/s and {ours_us:.0f} µs of processor time each, "
        f"{theirs:,.0f}/s and {theirs_us:.0f} µs",
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--servers", nargs="+", choices=_SERVERS, default=_SERVERS)
    results.run(parser, measure, quick={"rounds": 1, "seconds": 2.0, "connections": [256]})


if __name__ == "__main__":
    main()
