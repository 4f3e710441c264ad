"""The system with several of each service, and a proxy on every way between two parts."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal
from unittest import mock

from cli.catalogue import EVERYTHING
from cli.data_folder import DataFolder
from cli.environment import load_environment
from cli.probes import grpc_serves, http_answers
from cli.run_settings import RunSettings
from cli.stack import Stack
from cli.supervisor import Part
from tests.chaos.postgres import Postgres
from tests.chaos.proxy import Proxy, Target
from tests.support.ports import free_port, run_ports

DatabaseKind = Literal["postgresql", "sqlite"]

START_SECONDS = 60
_WRONG_CLOCK = Path(__file__).parents[1] / "support" / "wrong_clock"
_PROCESS = "tests.chaos.process"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024

MISSED = "Sorry that we missed your call."

VARIABLES = {
    # Nobody waits for the pace of people.
    "RECIPIENT_SECONDS_BETWEEN_MESSAGES": "0",
    "RECIPIENT_MAX_WAITING": "100000",
    "API_REQUESTS_PER_MINUTE": "1000000",
    "ASSISTANT_PAUSE_SECONDS": "0.5",
    "ASSISTANT_MAX_ANSWERS_PER_HOUR": "3600",
    "SANDBOX_ANSWER": "0.1",
    "SANDBOX_ANSWER_WORD": "0",
    "SANDBOX_TRANSCRIPTION": "0.05",
    "SANDBOX_SPEECH": "0.05",
    "SANDBOX_SPEECH_CHARACTER": "0",
    "SANDBOX_SENT_AFTER": "0.1",
    "SANDBOX_DELIVERED_AFTER": "0.2",
    "SANDBOX_READ_AFTER": "0.4",
    # Nothing takes longer than this between the sandbox's two ends, and what a killed process
    # had claimed is soon free.
    "TWILIO_TIMEOUT_SECONDS": "3",
    "SEND_UNKNOWN_GRACE_SECONDS": "8",
    "OPENAI_TIMEOUT_SECONDS": "5",
    "SLOW_QUERY_MS": "60000",
    "MISSED_CALL_REPLY": MISSED,
    "RECORDING_RETENTION": "none",
}


@dataclass
class _Service:
    part: Part
    internal: str
    process: "subprocess.Popen[bytes] | None" = None


class ChaosStack:
    """Processes, and the ways between them.

    Attributes:
        edges, messagings, healths: Names of the replicas; one alone has no health beside it.
        ways: By name, such as `webhook-nats`.
        api: Origin of the REST API and of the webhooks: the balancer before the edges.
        health: Origin of health, likewise.
        steps: The folder where steps are armed, see `process`.
        database_url: Where messages are, past all proxies.
    """

    def __init__(
        self,
        stack: Stack,
        data: DataFolder,
        *,
        postgres: Postgres | None,
        replicas: int,
        chance: random.Random,
    ) -> None:
        self.folder = data.path
        self.postgres = postgres
        self.api = stack.addresses.webhook
        self.sandbox = stack.addresses.sandbox or ""
        self.nats_url = stack.addresses.nats_url
        self.database_url = postgres.url if postgres else stack.addresses.database_url
        self.edges = [f"webhook-{number}" for number in range(1, replicas + 1)]
        # Two processes on one SQLite file would each wait for the other's writes.
        self.messagings = [f"messaging-{n}" for n in range(1, (replicas if postgres else 1) + 1)]
        self.healths = [f"health-{n}" for n in range(1, replicas + 1)] if replicas > 1 else []
        self.health = stack.addresses.health
        self.steps = data.path / "steps"
        self.steps.mkdir()
        self._clocks = data.path / "clocks"
        self._logs = data.logs
        self._chance = chance
        self.ways: dict[str, Proxy] = {}
        self._services: dict[str, _Service] = {}
        parts = {part.name: part for part in stack.parts()}
        self._build(parts, stack)

    def _build(self, parts: Mapping[str, Part], stack: Stack) -> None:
        port_of = {name: port for name, _, _, port in stack.ports()}
        http = {edge: free_port() for edge in self.edges}
        grpc = {one: free_port() for one in self.messagings}
        nats, sandbox = port_of["NATS"], port_of["the sandbox"]
        self._way("twilio-webhook", list(http.values()), port_of["webhook"])
        to_nats = [self._way(f"{one}-nats", [nats]) for one in ("webhook", "messaging")]
        to_messaging = self._way("webhook-messaging", list(grpc.values()))
        to_twilio = self._way("messaging-twilio", [sandbox])
        ours = {"TWILIO_API_BASE_URL": f"http://127.0.0.1:{to_twilio}"}
        direct = {"DATABASE_URL": self.database_url}
        if self.postgres:
            port = self._way("messaging-database", [self.postgres.socket])
            ours["DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{port}/chaos"
        self._add("NATS", parts["NATS"])
        # Recordings are fetched there, and only from where Twilio is known to be.
        self._add(
            "sandbox", _changed(parts["sandbox"], SANDBOX_BASE_URL=ours["TWILIO_API_BASE_URL"])
        )
        self._migrations = _changed(parts["migrations"], **direct)
        for name, port in grpc.items():
            own = {
                **ours,
                "NATS_URL": self.nats_url.replace(f":{nats}", f":{to_nats[1]}"),
                "MESSAGING_GRPC_BIND": f"127.0.0.1:{port}",
            }
            ready = partial(grpc_serves, f"127.0.0.1:{port}")
            self._add(name, self._replica(parts["messaging"], name, own, ready))
        for name, port in http.items():
            internal = free_port()
            own = {
                "NATS_URL": self.nats_url.replace(f":{nats}", f":{to_nats[0]}"),
                "MESSAGING_GRPC_ADDRESS": f"127.0.0.1:{to_messaging}",
                "WEBHOOK_PORT": str(port),
                "METRICS_PORT": str(internal),
                "SPILL_PATH": str(self.folder / f"spill-{name}.db"),
            }
            address = f"http://127.0.0.1:{internal}"
            ready = partial(http_answers, f"{address}/internal/health")
            self._add(name, self._replica(parts["webhook"], name, own, ready), address)
        if self.healths:
            self._add_healths(parts["health"], to_messaging, port_of["health"])

    def _add_healths(self, part: Part, to_messaging: int, port: int) -> None:
        ports = {name: free_port() for name in self.healths}
        self._way("probes-health", list(ports.values()), port)
        for name, own_port in ports.items():
            own = {
                "HEALTH_PORT": str(own_port),
                "MESSAGING_GRPC_ADDRESS": f"127.0.0.1:{to_messaging}",
                "WEBHOOK_INTERNAL_URL": self.internal(self.edges[0]),
            }
            ready = partial(http_answers, f"http://127.0.0.1:{own_port}/api/health/liveness")
            self._add(name, self._replica(part, name, own, ready))

    def _replica(
        self,
        part: Part,
        name: str,
        environ: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
    ) -> Part:
        """Another replica of a part, which dies at steps, and whose clock can be set."""
        *python, module = part.command
        ours = {
            "METRICS_PORT": "",
            "STEPS": str(self.steps),
            "CLOCKS": str(self._clocks / name),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(_WRONG_CLOCK), part.environ.get("PYTHONPATH")])
            ),
        }
        return replace(
            part,
            name=name,
            command=[*python, _PROCESS, module],
            environ={**part.environ, **ours, **environ},
            ready=ready,
        )

    def set_clock(self, name: str, ahead: float) -> None:
        """Set a service's clock so many seconds ahead of the real one, also when it is killed."""
        folder = self._clocks / name
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed, for nobody must read half a number.
        written = folder / "new"
        written.write_text(str(ahead))
        written.rename(folder / _PROCESS)

    def _way(self, name: str, targets: Sequence[Target], port: int | None = None) -> int:
        port = port or free_port()
        self.ways[name] = Proxy(port, targets, random.Random(self._chance.random()))
        return port

    def _add(self, name: str, part: Part, internal: str = "") -> None:
        self._services[name] = _Service(part, internal)

    async def open(self) -> None:
        """Start everything."""
        for way in self.ways.values():
            await way.open()
        for name in ("NATS", "sandbox"):
            self.start(name)
            await self.ready(name)
        with (self._logs / "migrations.log").open("ab") as log:
            migrations = await asyncio.create_subprocess_exec(
                *self._migrations.command, env=self._migrations.environ, stdout=log, stderr=log
            )
            code = await migrations.wait()
        if code != 0:
            raise RuntimeError("the database could not be migrated")
        services = (*self.messagings, *self.edges, *self.healths)
        for name in services:
            self.start(name)
        for name in services:
            await self.ready(name)

    async def close(self) -> None:
        """Stop everything, the last one first."""
        for name in reversed(self._services):
            process = self._services[name].process
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)
        for name in self._services:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await self.ended(name, 20)
            self.kill(name)
        for way in self.ways.values():
            await way.close()

    def start(self, name: str) -> None:
        """Start a service, without waiting for it."""
        service = self._services[name]
        with (self._logs / f"{name}.log").open("ab") as log:
            service.process = subprocess.Popen(
                service.part.command,
                env=service.part.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self, name: str) -> None:
        """Wait until a service does its work.

        Raises:
            RuntimeError: It ended, or took more than a minute.
        """
        service = self._services[name]
        deadline = time.monotonic() + START_SECONDS
        while not (service.part.ready and await service.part.ready()):
            if self.process(name).poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} doesn't start:\n{self.log(name)[-3000:]}")
            await asyncio.sleep(0.05)

    async def has_journal(self, edge: str) -> None:
        """Wait until an edge's events go into the journal.

        Raises:
            TimeoutError: They don't.
        """
        address = f"{self.internal(edge)}/internal/health"
        async with asyncio.timeout(START_SECONDS):
            while not await http_answers(address, true="journal_connected"):  # noqa: ASYNC110 - Nobody tells.
                await asyncio.sleep(0.05)

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        """A service's process."""
        process = self._services[name].process
        if process is None:
            raise RuntimeError(f"{name} isn't running")
        return process

    def internal(self, edge: str) -> str:
        """Origin of an edge's internal port."""
        return self._services[edge].internal

    def kill(self, name: str) -> None:
        """End a service as a crash would."""
        service = self._services[name]
        if service.process is not None:
            service.process.kill()
            service.process.wait()
            service.process = None

    async def ended(self, name: str, seconds: float = 40) -> int:
        """A service's exit code, once it has stopped.

        Raises:
            subprocess.TimeoutExpired: It didn't.
        """
        return await asyncio.to_thread(self.process(name).wait, seconds)

    def log(self, name: str) -> str:
        """All that a service wrote."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def processor_seconds(self) -> dict[str, float]:
        """What each service has used of the processors until now, PostgreSQL included (Linux)."""
        processes = {
            name: [service.process.pid]
            for name, service in self._services.items()
            if service.process is not None
        }
        if self.postgres:
            processes["PostgreSQL"] = self.postgres.processes()
        return {name: sum(map(_processor_seconds, pids)) for name, pids in processes.items()}

    def memory_mib(self) -> dict[str, float]:
        """Resident memory of each service (Linux)."""
        found = {}
        for name, service in self._services.items():
            if service.process is not None and service.process.poll() is None:
                pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
                found[name] = int(pages) * _PAGE_KIB / 1024
        return found


def _changed(part: Part, **environ: str) -> Part:
    return replace(part, environ={**part.environ, **environ})


def _processor_seconds(process: int) -> float:
    """Of a process, and of those of its children that have ended."""
    with contextlib.suppress(OSError):
        _, _, stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")
        return sum(map(int, stat.split()[11:15])) / _TICKS
    return 0.0


@asynccontextmanager
async def running_chaos_stack(
    folder: Path,
    *,
    database: DatabaseKind,
    replicas: int = 2,
    chance: random.Random,
    variables: Mapping[str, str] | None = None,
    make: Callable[..., ChaosStack] = ChaosStack,
) -> AsyncIterator[ChaosStack]:
    """The system, in a folder and on ports of its own.

    Args:
        make: Another kind of stack, made with the same arguments.
    """
    ours = {name.upper() for part in EVERYTHING.values() for name in part.model_fields}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    environ |= run_ports()
    environ |= VARIABLES | dict(variables or {})
    async with contextlib.AsyncExitStack() as closing:
        with contextlib.chdir(folder), mock.patch.dict(os.environ, environ, clear=True):
            environment = load_environment(sandbox_allowed=True)
            data = closing.enter_context(DataFolder(folder / "data"))
            stack = Stack(environment, RunSettings.load(environment.variables), data)
        postgres = None
        if database == "postgresql":
            postgres = await asyncio.to_thread(Postgres)
            closing.callback(postgres.delete)
        running = make(stack, data, postgres=postgres, replicas=replicas, chance=chance)
        closing.push_async_callback(running.close)
        await running.open()
        yield running
