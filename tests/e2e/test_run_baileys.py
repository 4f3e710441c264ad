"""`switchboard run` and `switchboard say` with Baileys: the bridge and a WhatsApp of our own."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cli.whatsapp import missing_program
from tests.e2e.test_run import Machine
from tests.support.nats import free_port

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(missing_program() is not None, reason=missing_program() or ""),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which messages go by Baileys."""
    machine = Machine(tmp_path)
    machine.environ["WHATSAPP_PROVIDER"] = "baileys"
    for name in ("WHATSAPP", "WHATSAPP_CONTROL"):
        machine.environ[f"SWITCHBOARD_{name}_PORT"] = str(free_port())
    return machine


def test_the_same_conversation_by_baileys(machine: Machine) -> None:
    """The bridge pairs by itself with the sandbox's phone, and an answer is read as with Twilio."""
    with machine.running() as run:
        said = machine.say("Is the flat in Haifa still free?")
        assert said.returncode == 0, said.stdout
        for step in ("WhatsApp has it", "stored as", "assistant answers", "sent", "delivered"):
            assert step in said.stdout
        assert said.stdout.rstrip().endswith("read")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
    # Yesterday's session is there again, without another pairing.
    with machine.running():
        said = machine.say("And with a balcony?")
        assert said.returncode == 0, said.stdout
    log = (machine.data / "logs" / "bridge.log").read_text()
    assert '"state":"open"' in log
    assert '"state":"pairing"' not in log
    assert len(machine.bodies()) == 4


def test_without_node_it_says_what_to_install(machine: Machine, tmp_path: Path) -> None:
    """A sentence and no traceback, before anything was started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "env"):
        (programs / name).symlink_to(shutil.which(name) or "")
    machine.environ["PATH"] = str(programs)
    ended = machine.run()
    assert ended.returncode == 1
    assert "needs Node.js" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_node_that_is_too_old_is_named(machine: Machine, tmp_path: Path) -> None:
    """The sentence shows the version that was found."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("node", "echo v18.19.0"), ("npm", "true")):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (programs / "sh").symlink_to(shutil.which("sh") or "")
    assert subprocess.run([programs / "node"], capture_output=True, check=True).stdout
    machine.environ["PATH"] = str(programs)
    ended = machine.run()
    assert ended.returncode == 1
    assert "v18.19.0" in ended.stdout
