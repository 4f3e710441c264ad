"""`switchboard run` and `switchboard say` as a person uses them."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.catalogue import EVERYTHING
from cli.environment import sandbox_file
from tests.support.ports import run_ports
from tests.support.processes import is_running

COMMAND = [sys.executable, "-m", "cli"]
PARTS = ("NATS", "sandbox", "messaging", "webhook", "health")
PORTS = ("HTTP", "HEALTH", "GRPC", "SANDBOX", "NATS", "WEBHOOK_METRICS", "HEALTH_METRICS")

pytestmark = pytest.mark.timeout(400)


class Machine:
    """A folder and ports of its own, in which commands are given.

    Attributes:
        within: A command that starts `switchboard run`, in a namespace for example.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / ".data"
        self.within: list[str] = []
        ours = {name.upper() for part in EVERYTHING.values() for name in part.model_fields}
        self.environ = {name: value for name, value in os.environ.items() if name not in ours}
        self.environ |= run_ports()
        self.environ["PYTHONUNBUFFERED"] = "1"
        # On a busy machine any query may be slow, and it says so.
        self.environ["SLOW_QUERY_MS"] = "60000"

    @contextlib.contextmanager
    def running(self) -> Iterator["Run"]:
        """`switchboard run` until it is ready; killed at the end if it still runs."""
        run = Run(self)
        try:
            run.until("Switchboard is ready")
            yield run
        finally:
            run.process.kill()
            run.process.communicate()

    def run(self) -> "subprocess.CompletedProcess[str]":
        """`switchboard run` that is expected to end by itself."""
        return self.command("run")

    def say(self, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """`switchboard say`."""
        return self.command("say", *options, text)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Any command that ends by itself."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )

    def bodies(self) -> list[str]:
        """What stands in the database."""
        with contextlib.closing(sqlite3.connect(self.data / "switchboard.db")) as database:
            return [row[0] for row in database.execute("SELECT body FROM messages")]


class Run:
    """A `switchboard run` that goes on."""

    def __init__(self, machine: Machine) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*machine.within, *COMMAND, "run"],
            cwd=machine.folder,
            env=machine.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, line: str) -> None:
        """Read on until `line`."""
        assert self.process.stdout is not None
        for read in self.process.stdout:
            self.lines.append(read.rstrip())
            if self.lines[-1] == line:
                return
        pytest.fail("\n".join(self.lines))

    def end(self) -> int:
        """Its exit code, once it has ended."""
        output, _ = self.process.communicate(timeout=120)
        self.lines += output.splitlines()
        return self.process.returncode

    def children(self) -> dict[str, int]:
        """Process ids of the parts."""
        pid = self.process.pid
        found = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            name = "NATS" if command[0].endswith("nats-server") else command[2].split(".")[-1]
            found[name] = int(child)
        return found


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_message_is_answered_and_the_data_outlives_the_run(machine: Machine) -> None:
    """One command starts everything, a contact's message is answered and read, other commands
    find the journal, Ctrl-C stops all in reverse order, and the next run has the conversation."""
    with machine.running() as run:
        assert "No .env here: using the sandbox" in "\n".join(run.lines)
        said = machine.say("Is the flat in Haifa still free?")
        assert said.returncode == 0, said.stdout
        steps = [line.split("  ", 1)[1] for line in said.stdout.splitlines()]
        assert [step.split()[0] for step in steps[-3:]] == ["sent", "delivered", "read"]
        assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3}  ", line) for line in said.stdout.splitlines())
        assert machine.command("dead", "list").stdout == "There are no dead letters.\n"
        replayed = machine.command("replay", "--since", "1h")
        assert replayed.returncode == 0, replayed.stdout
        assert "messages  1: 0 new, 1 known already" in replayed.stdout
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
    stopped = [line.split()[0] for line in run.lines if line.endswith(" stopped")]
    assert stopped[: len(PARTS)] == list(reversed(PARTS))
    assert not [line for line in run.lines if ": warning: " in line or ": error: " in line]

    with machine.running() as again:
        assert "Is the flat in Haifa still free?" in machine.bodies()
        said = machine.say("And the garden?", "--from", "+972507654321")
        assert said.returncode == 0, said.stdout
        for text in ("STOP", "Hello?"):
            unanswered = machine.say(text, "--from", "+972507654321")
            assert unanswered.returncode == 0, unanswered.stdout
            assert "this contact has opted out" in unanswered.stdout
        hasty = machine.say("Hello?", "--timeout", "0.3")
        assert hasty.returncode == 1
        assert "After 0.3 s Switchboard still waits for" in hasty.stdout
        again.process.terminate()
        assert again.end() == 0


@linux_only
def test_a_part_that_dies_ends_the_run_with_a_sentence(machine: Machine) -> None:
    """Half a stack doesn't go on: the sentence names the part, and the exit code is not 0."""
    with machine.running() as run:
        os.kill(run.children()["messaging"], signal.SIGKILL)
        assert run.end() == 1
    assert any(line.startswith("messaging was killed by SIGKILL") for line in run.lines)
    assert "Switchboard has stopped" in run.lines


@linux_only
def test_a_killed_run_leaves_its_ports_free(machine: Machine) -> None:
    """After the worst end, the next start works and still has the data."""
    with machine.running() as run:
        second = machine.run()
        assert second.returncode == 1
        assert f"Another Switchboard is using {machine.data}" in second.stdout
        children = run.children()
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + 60
        while any(is_running(pid) for pid in children.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    said = machine.say("Anyone?")
    assert said.returncode == 1
    assert "isn't running" in said.stdout
    with machine.running() as again:
        again.process.terminate()
        assert again.end() == 0


@pytest.mark.parametrize("name", PORTS)
def test_a_port_in_use_is_a_sentence(machine: Machine, name: str) -> None:
    """The port, who wanted it and the variable to change are named, and nothing is started."""
    variable = f"SWITCHBOARD_{name}_PORT"
    with socket.create_server(("127.0.0.1", int(machine.environ[variable]))):
        run = machine.run()
    assert run.returncode == 1
    assert variable in run.stdout
    assert machine.environ[variable] in run.stdout
    assert "Starting NATS" not in run.stdout


def test_an_incomplete_env_file_names_everything_at_once(machine: Machine) -> None:
    """A real configuration is checked as a whole before anything starts."""
    (machine.folder / ".env").write_text("PUBLIC_HOST=https://switchboard.example.com\n")
    run = machine.run()
    assert run.returncode == 78
    assert "TWILIO_ACCOUNT_SID" in run.stdout
    assert "TWILIO_AUTH_TOKEN" in run.stdout
    assert "DATABASE_URL" not in run.stdout
    assert "sandbox" not in run.stdout


def test_a_real_configuration_starts_no_sandbox(machine: Machine) -> None:
    """With a .env nothing is pretended, and there is no contact to play."""
    settings = sandbox_file().read_text()
    (machine.folder / ".env").write_text(settings)
    with machine.running() as run:
        assert "Starting sandbox" not in run.lines
        said = machine.say("Anyone?")
        assert said.returncode == 1
        assert "real configuration" in said.stdout
        run.process.terminate()
        assert run.end() == 0
