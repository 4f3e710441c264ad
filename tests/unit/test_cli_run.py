"""The pieces of `switchboard run` that need no stack."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.data_folder import Addresses, DataFolder, FolderInUseError, NotRunningError
from cli.environment import Environment
from cli.process import trouble_in
from cli.run import port_problem, run, summary
from cli.run_settings import RunSettings
from cli.stack import Stack
from services.common.lifecycle import EXIT_CONFIGURATION
from tests.support.ports import free_port

ADDRESSES = Addresses(
    "http://w",
    "http://h",
    "g:1",
    "token",
    "nats://n",
    "sqlite:///d",
    None,
    whatsapp=None,
)


def test_a_port_in_use_is_named_with_its_part_and_variable() -> None:
    """The sentence says which port, who needs it and what to change."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        problem = port_problem([("webhook", "SWITCHBOARD_HTTP_PORT", "127.0.0.1", port)])
    assert problem is not None
    assert str(port) in problem
    assert "webhook" in problem
    assert "SWITCHBOARD_HTTP_PORT" in problem


def test_two_parts_cannot_have_one_port() -> None:
    """A collision among our own ports is found before anything starts."""
    port = free_port()
    problem = port_problem([("a", "PORT_A", "127.0.0.1", port), ("b", "PORT_B", "127.0.0.1", port)])
    assert problem == f"PORT_B and PORT_A are both {port}. Change one of them."


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    """Two runs never share a database and a journal."""
    with (
        DataFolder(tmp_path / "data"),
        pytest.raises(FolderInUseError),
        DataFolder(tmp_path / "data"),
    ):
        pass
    with DataFolder(tmp_path / "data"):
        pass


def test_addresses_are_known_only_while_a_run_is_ready(tmp_path: Path) -> None:
    """Other commands tell a stack that runs from one that starts or has ended."""
    reader = DataFolder(tmp_path / "data")
    with pytest.raises(NotRunningError, match="isn't running"):
        reader.addresses()
    with DataFolder(tmp_path / "data") as folder:
        with pytest.raises(NotRunningError, match="still starting"):
            reader.addresses()
        folder.publish(ADDRESSES)
        assert reader.addresses() == ADDRESSES
    with pytest.raises(NotRunningError, match="isn't running"):
        reader.addresses()


def test_tokens_are_kept_and_private(tmp_path: Path) -> None:
    """A second run uses the token of the first, which only its owner can read."""
    with DataFolder(tmp_path / "data") as folder:
        token = folder.token("nats")
        other = folder.token("grpc")
    assert DataFolder(tmp_path / "data").token("nats") == token != other
    assert (tmp_path / "data/nats.token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_the_summary_says_what_is_off_and_how_to_switch_it_on(tmp_path: Path) -> None:
    """What has no address isn't given one, and what works isn't talked about."""

    def shown(variables: dict[str, str]) -> dict[str, str]:
        environment = Environment(variables, tmp_path / ".env", [], sandbox=False)
        with DataFolder(tmp_path / "data") as folder:
            return summary(Stack(environment, RunSettings(), folder), folder)

    off = shown({"API_KEYS": ""})
    assert (off["API"], off["Assistant"]) == ("off: set API_KEYS", "off: set OPENAI_API_KEY")
    on = shown({"API_KEYS": "crm:a-long-random-string", "OPENAI_API_KEY": "sk"})
    assert on["API"] == "http://127.0.0.1:8080/api/whatsapp"
    assert "Assistant" not in on


def test_a_mistyped_variable_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wonders why the assistant is silent with a key under a name that nothing reads."""
    monkeypatch.delenv("PUBLIC_HOST", raising=False)
    file = tmp_path / "some.env"
    file.write_text(f"OPENAI_APIKEY=hidden\nSWITCHBOARD_DATA_DIR={tmp_path}/data\nPUBLIC_HOST=x\n")
    assert run(file) == EXIT_CONFIGURATION
    printed = capsys.readouterr().out
    assert f"In {file}, but no part reads it: OPENAI_APIKEY\n" in printed
    assert "hidden" not in printed


def test_an_interrupt_while_a_command_is_loaded_ends_it_quietly() -> None:
    """Ctrl-C right after the start prints no traceback; the code is a shell's for SIGINT."""
    program = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "cli.supervisor":
            os.kill(os.getpid(), signal.SIGINT)

# Whoever starts the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from cli.main import main
main(["run"])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ('{"event": "fine", "level": "info"}', None),
        ('{"event": "odd", "level": "warning", "count": 3}', "warning: odd count=3"),
        ("[7] 2026/01/01 00:00:00 [INF] Server is ready", None),
        ("[7] 2026/01/01 00:00:00 [ERR] disk", "[7] 2026/01/01 00:00:00 [ERR] disk"),
        ("WARNING sandbox odd", "WARNING sandbox odd"),
        ("INFO sandbox fine", None),
        ('"a text"', None),
    ],
)
def test_only_warnings_and_worse_are_shown(line: str, trouble: str | None) -> None:
    """The terminal stays quiet until something needs a person."""
    assert trouble_in(line) == trouble
