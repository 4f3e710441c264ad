"""The whole system as `switchboard run` starts it with the sandbox, part by part."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from cli.catalogue import EVERYTHING
from cli.data_folder import DataFolder
from cli.environment import load_environment
from cli.run_settings import RunSettings
from cli.stack import Stack
from cli.supervisor import Part
from tests.support.ports import run_ports

_START_SECONDS = 120
_CALL_SECONDS = 180
API_KEY = "sandbox-api-key"


class RunningStack:
    """Processes that talk to each other, and the ways into them.

    Attributes:
        sandbox: Its control API.
        api: Switchboard's REST API.
        metrics_ports: The internal port of each service.
        variables: What all parts are told.
    """

    def __init__(self, stack: Stack, data: DataFolder) -> None:
        self._parts = {part.name: part for part in stack.parts()}
        self._data = data
        self._folder = data.logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.metrics_ports = stack.metrics_ports
        self.variables = stack.variables
        addresses = stack.addresses
        self.addresses = addresses
        self.sandbox = httpx.Client(
            base_url=addresses.sandbox or "", timeout=_CALL_SECONDS, trust_env=False
        )
        self.api = httpx.Client(
            base_url=addresses.webhook,
            headers={"X-API-Key": API_KEY},
            timeout=60,
            trust_env=False,
        )

    def publish(self) -> Path:
        """Let commands find the stack; returns the folder that they need to know."""
        self._data.publish(self.addresses)
        return self._data.path

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a part and, as a rule, wait until it is ready."""
        part = self._parts[name]
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                part.command,
                env=part.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        if part.ready is None:
            assert process.wait(_START_SECONDS) == 0, self.log(name)
            return
        deadline = time.monotonic() + _START_SECONDS
        while wait and not asyncio.run(_ready(part)):
            assert process.poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.05)

    def part(self, name: str) -> Part:
        """How a part is started."""
        return self._parts[name]

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        """The process of a part."""
        return self._processes[name]

    def kill(self, name: str) -> None:
        """End a part as a crash would."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """A part is killed for a while, then starts again."""
        self.kill(name)
        try:
            yield
        finally:
            self.start(name)

    def until_messaging_is_found(self) -> None:
        """Wait until the edge, which looks for messaging every 2 s at most, has found it again."""
        deadline = time.monotonic() + _START_SECONDS
        while self.api.get("/api/whatsapp/conversations").status_code == 503:
            assert time.monotonic() < deadline, self.log("webhook")
            time.sleep(0.1)

    def processor_seconds(self) -> dict[str, float]:
        """Processor time that each part has used so far (Linux)."""
        ticks = os.sysconf("SC_CLK_TCK")
        used = {}
        for name, process in self._processes.items():
            if process.poll() is None:
                stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                used[name] = (int(stat[11]) + int(stat[12])) / ticks
        return used

    def log(self, name: str, *, last: int | None = 5000) -> str:
        """The end of what a part wrote, or all of it."""
        text = (self._folder / f"{name}.log").read_text()
        return text if last is None else text[-last:]

    def start_all(self, without: Collection[str] = ()) -> None:
        """Start every part but some, each after those it needs."""
        for name in self._parts:
            if name not in without:
                self.start(name)

    def stop_all(self) -> None:
        """Stop every part, the last one first."""
        self.sandbox.close()
        self.api.close()
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()

    def reset(self, **latencies: float) -> None:
        """A sandbox without calls and faults, its vendors as fast as they are told to be."""
        self.sandbox.post("/sandbox/reset").raise_for_status()
        self.sandbox.put("/sandbox/latencies", json=latencies).raise_for_status()

    def faults(self, **faults: Any) -> None:
        """Set all switches of the sandbox; those not given are off."""
        self.sandbox.put("/sandbox/faults", json=faults).raise_for_status()

    def begin(self, *turns: str | dict[str, Any], **scenario: Any) -> str:
        """Start a call; returns its id. A text is spoken, and "" is silence."""
        said = [{"text": turn} if isinstance(turn, str) else turn for turn in turns]
        made = self.sandbox.post("/sandbox/calls", json={"turns": said, "speed": 20, **scenario})
        made.raise_for_status()
        return str(made.json()["sid"])

    def finished(self, sid: str) -> dict[str, Any]:
        """A call once it has ended and its last status was told."""
        known: list[dict[str, Any]] = []
        deadline = time.monotonic() + _CALL_SECONDS
        while not any(entry["kind"] == "status_callback" for entry in known):
            assert time.monotonic() < deadline, known
            news = self.sandbox.get(
                f"/sandbox/calls/{sid}/timeline", params={"after": len(known), "wait": 1}
            )
            known += news.json()
            if known and known[-1]["kind"] == "ended":
                time.sleep(0.02)
        found: dict[str, Any] = self.sandbox.get(f"/sandbox/calls/{sid}").json()
        return found

    def call(self, *turns: str | dict[str, Any], **scenario: Any) -> dict[str, Any]:
        """A whole call."""
        return self.finished(self.begin(*turns, **scenario))

    def stored(self, sid: str, **wanted: Any) -> dict[str, Any]:
        """The call as the REST API has it, once it has ended and is as it is wanted."""
        deadline = time.monotonic() + _CALL_SECONDS
        while True:
            response = self.api.get(f"/api/calls/{sid}")
            found: dict[str, Any] = response.json()
            known = response.is_success and found.get("ended_at")
            if known and all(found.get(name) == value for name, value in wanted.items()):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def vendor_calls(self, vendor: str | None = None) -> list[dict[str, Any]]:
        """What the vendors were asked."""
        parameters = {"vendor": vendor} if vendor else {}
        found: list[dict[str, Any]] = self.sandbox.get(
            "/sandbox/vendors/calls", params=parameters
        ).json()
        return found


@contextmanager
def running_stack(
    folder: Path, variables: Mapping[str, str], *, without: Collection[str] = ()
) -> Iterator[RunningStack]:
    """Everything, in a folder and on ports of its own.

    Args:
        variables: Beside those of the sandbox's file, which they win over.
        without: Parts that are not started.
    """
    ours = {name.upper() for part in EVERYTHING.values() for name in part.model_fields}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    environ |= run_ports()
    # On a busy machine any query may be slow, and it says so.
    environ |= {"SLOW_QUERY_MS": "60000", **variables}
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environ, clear=True):
        environment = load_environment(sandbox_allowed=True)
        data = DataFolder(folder / "data")
        with data:
            settings = RunSettings.load(environment.variables)
            running = RunningStack(Stack(environment, settings, data), data)
            try:
                running.start_all(without)
                yield running
            finally:
                running.stop_all()


async def _ready(part: Part) -> bool:
    try:
        return part.ready is not None and await part.ready()
    except Exception:  # noqa: BLE001 - it is asked again, whatever it was.
        return False
