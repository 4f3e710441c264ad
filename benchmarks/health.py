"""Health's detailed report against FastAPI that answers nothing, under the same load.

`python -m benchmarks.health` serves both from one process, asks them in turns from another, and
prints the 99th percentile of each round and their ratio, which should be below 3.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from benchmarks import results
from benchmarks.results import Result, say
from services.common.configuration import configuration_finding
from services.common.http_server import serving_http
from services.common.monitor import Finding, Findings, Monitor, Probe
from services.health.access import Access
from services.health.app import build_app
from services.health.report import Report
from services.health.settings import HealthSettings
from services.messaging.settings import MessagingSettings

_COMPONENTS = 16
_REQUESTS = 4000


async def _ask() -> Findings:
    variables = [
        {"name": name.upper(), "group": "core", "set": True}
        for name in MessagingSettings.model_fields
    ]
    return {
        "webhook": Finding("ok"),
        "configuration_messaging": Finding("ok", details={"variables": variables}),
        **{f"component_{n}": Finding("ok", details={"n": n}) for n in range(_COMPONENTS)},
    }


async def _serve(told: Connection) -> None:
    settings = HealthSettings.load({"GRPC_TOKEN": "token", "NATS_URL": "nats://nowhere"})
    monitor = Monitor([Probe("webhook", _ask, 1.0, 1.0)])
    report = Report(monitor, configuration_finding(settings))
    health = build_app(
        report, access=Access(settings.open_networks(), ()), registry=CollectorRegistry()
    )
    nothing = FastAPI()

    @nothing.get("/")
    async def noop() -> dict[str, str]:
        return {}

    async with (
        serving_http(health, host="127.0.0.1", port=0) as health_port,
        serving_http(nothing, host="127.0.0.1", port=0) as noop_port,
    ):
        told.send((health_port, noop_port))
        await monitor.run()


def _server(told: Connection) -> None:
    uvloop.run(_serve(told))


async def _worker(port: int, path: str, requests: int, took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        began = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        took.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()


async def _p99(port: int, path: str, connections: int) -> float:
    took: list[float] = []
    each = _REQUESTS // connections
    await asyncio.gather(*(_worker(port, path, each, took) for _ in range(connections)))
    return sorted(took)[int(0.99 * len(took))]


async def _compare(health: int, noop: int, connections: int, rounds: int) -> Result:
    say("p99 in ms: detailed, FastAPI no-op, ratio")
    ours, theirs = [], []
    for number in range(rounds + 1):
        detailed = await _p99(health, "/api/health/detailed", connections)
        nothing = await _p99(noop, "/", connections)
        # The first round warms both.
        if number:
            ours.append(detailed * 1000)
            theirs.append(nothing * 1000)
            say(f"  {ours[-1]:7.2f} {theirs[-1]:7.2f} {detailed / nothing:6.2f}")
    return Result(
        f"p99 of the detailed report, {connections} connections",
        [one / two for one, two in zip(ours, theirs, strict=True)],
        against="a FastAPI no-op",
        wanted="below 3",
        details=f"{statistics.median(ours):.1f} ms, {statistics.median(theirs):.1f} ms",
    )


def measure(options: argparse.Namespace) -> list[Result]:
    """Compare, both served by one process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_server, args=(theirs,))
    process.start()
    try:
        health, noop = ours.recv()
        return [uvloop.run(_compare(health, noop, options.connections, options.rounds))]
    finally:
        process.terminate()
        process.join()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    results.run(parser, measure, quick={"rounds": 1})


if __name__ == "__main__":
    main()
