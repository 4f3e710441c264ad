"""The edge, verified and fsynced, against two yardsticks that store nothing.

`python -m benchmarks.edge` prints ratios of requests per second, all from one run: the edge
against a FastAPI route that only reads the body, and against Flask with the Twilio SDK's
validator. Each server is one worker pinned to the first core; the load generator and NATS share
the second. Afterwards every acknowledged event must stand in the journal. The processor time that
a request takes the server is shown too: it depends less on what else the machine does.
"""

import argparse
import asyncio
import base64
import contextlib
import hmac
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
import nats
import uvloop

from benchmarks import load
from services.common.journal.streams import INGEST_STREAM, ensure_streams
from tests.support.nats import NatsServer
from tests.support.ports import free_port

_PATH = "/webhook/whatsapp/incoming"
_ORIGIN = "https://switchboard.example.com"
_TOKEN = "0123456789abcdef0123456789abcdef"
_CORES = sorted(os.sched_getaffinity(0))
_SERVERS = ("edge", "fastapi", "flask")


@dataclass(frozen=True)
class Measurement:
    """One run of one server."""

    per_second: float
    processor_us: float
    """Microseconds of processor time a request, the system's share included."""


def _signed_request(number: int) -> bytes:
    sid = f"SM{number:032x}"
    parameters = {
        "SmsMessageSid": sid,
        "NumMedia": "0",
        "ProfileName": "Noa Levi",
        "MessageType": "text",
        "SmsSid": sid,
        "WaId": "972501234567",
        "SmsStatus": "received",
        "Body": "Hello, is the flat in Haifa still free? I could come and see it tomorrow.",
        "To": "whatsapp:+14155238886",
        "NumSegments": "1",
        "ReferralNumMedia": "0",
        "MessageSid": sid,
        "AccountSid": "AC00000000000000000000000000000000",
        "ChannelMetadata": '{"type":"whatsapp","data":{"context":{"ProfileName":"Noa Levi"}}}',
        "From": "whatsapp:+972501234567",
        "ApiVersion": "2010-04-01",
    }
    text = _ORIGIN + _PATH + "".join(name + parameters[name] for name in sorted(parameters))
    mac = base64.b64encode(hmac.digest(_TOKEN.encode(), text.encode(), "sha1")).decode()
    body = urlencode(parameters)
    return (
        f"POST {_PATH} HTTP/1.1\r\nHost: switchboard.example.com\r\n"
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\nX-Twilio-Signature: {mac}\r\n"
        "I-Twilio-Idempotency-Token: 2f7a5a9e-52a2-4b5c-9f3e-6f0f6d1f7c55\r\n"
        "User-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n\r\n" + body
    ).encode()


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


def _processor_seconds(process: int) -> float:
    """What a process and its children have used: gunicorn's worker is a child."""
    folder = Path("/proc") / str(process)
    # The name in parentheses may hold spaces; 11 and 12 after it are user and system time.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = (folder / "task" / str(process) / "children").read_text().split()
    return own + sum(_processor_seconds(int(child)) for child in children)


async def _create_journal(url: str) -> None:
    # The edge would do it too, but says that it is ready a moment before.
    client = await nats.connect(url)
    try:
        await ensure_streams(client.jetstream(), replicas=1, max_bytes=1 << 30)
    finally:
        await client.close()


async def _journaled(url: str) -> int:
    client = await nats.connect(url)
    try:
        return (await client.jetstream().stream_info(INGEST_STREAM)).state.messages
    finally:
        await client.close()


def measure(name: str, connections: int, seconds: float, requests: Iterator[bytes]) -> Measurement:
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
                before = _processor_seconds(process)
                result = uvloop.run(
                    load.run(port, requests, connections=connections, seconds=seconds)
                )
                used = _processor_seconds(process) - before
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


def main() -> None:
    """Measure in turns, so that a busy moment of the machine hits all alike."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=4.0)
    arguments.add_argument("--connections", type=int, nargs="+", default=[64, 256, 512])
    arguments.add_argument("--servers", nargs="+", choices=_SERVERS, default=_SERVERS)
    options = arguments.parse_args()
    os.sched_setaffinity(0, _CORES[1:2] or _CORES)
    prepared = [_signed_request(number) for number in range(int(options.seconds * 15_000))]
    for connections in options.connections:
        runs: dict[str, list[Measurement]] = {name: [] for name in options.servers}
        for _ in range(options.rounds):
            for name in options.servers:
                runs[name].append(measure(name, connections, options.seconds, iter(prepared)))
        median = {
            name: statistics.median(run.per_second for run in of_one)
            for name, of_one in runs.items()
        }
        for name, of_one in runs.items():
            rounds = " ".join(f"{run.per_second:,.0f}" for run in of_one)
            processor = statistics.median(run.processor_us for run in of_one)
            print(
                f"{connections} connections, {name}: {rounds} requests/s,"
                f" {processor:.0f} µs of processor time each",
                flush=True,
            )
        for other in options.servers:
            if other != "edge" and "edge" in median:
                ratio = median["edge"] / median[other]
                print(f"{connections} connections: edge is {ratio:.2f} x {other}", flush=True)


if __name__ == "__main__":
    main()
