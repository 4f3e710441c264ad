"""`switchboard run` and `switchboard say` with Baileys: the bridge and a WhatsApp of our own."""

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.whatsapp import missing_program
from tests.e2e.test_run import Machine
from tests.support.stack import API_KEY

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(missing_program() is not None, reason=missing_program() or ""),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which messages go by Baileys."""
    machine = Machine(tmp_path)
    machine.environ["WHATSAPP_PROVIDER"] = "baileys"
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


def test_the_largest_messages(machine: Machine) -> None:
    """What a document of the queue has no room for is cut, and stored so."""
    whatsapp = f"http://127.0.0.1:{machine.environ['SWITCHBOARD_WHATSAPP_CONTROL_PORT']}"
    vcard = f"BEGIN:VCARD\nPHOTO:{'A' * 14_000}\nEND:VCARD"
    cards = [{"name": f"Card {number}", "vcard": vcard} for number in range(20)]
    with machine.running(), httpx.Client(timeout=60, trust_env=False) as http:
        assert machine.say("Is the flat in Haifa still free?").returncode == 0
        for writing in (
            {"type": "text", "text": "\U0001f44d" * 65_536},
            {"type": "text", "text": "\u0001" * 65_536},
            {"type": "contacts", "contacts": cards},
        ):
            http.post(f"{whatsapp}/contacts/972501234567/messages", json=writing).raise_for_status()
        names = ", ".join(card["name"] for card in cards)
        until(lambda: names in machine.bodies())
        until(lambda: len([one for one in machine.bodies() if one.endswith("\u2026")]) == 2)
    assert [*(machine.data / "baileys" / "queue" / "inbox" / "bad").iterdir()] == []


_SMALL = ["unshare", "--user", "--map-root-user", "--mount"]
# The session's keys take 3.3 MB. A file that is fetched again has to have room beside itself.
_MOUNT = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'


class SmallDisk:
    """A small file system with the queue's folder and the bridge's own, for one run."""

    def __init__(self, machine: Machine) -> None:
        self._folder = machine.folder / "small"
        self._folder.mkdir()
        machine.within = [*_SMALL, "sh", "-c", _MOUNT, str(self._folder)]
        for name in ("queue", "state"):
            folder = self._folder / name
            machine.environ[f"BAILEYS_{name.upper()}_DIR"] = str(folder)

    def seen_by(self, process: int) -> None:
        """Look at it as a process does: others see the empty folder below it."""
        self._folder = Path(f"/proc/{process}/root{self._folder}")

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes."""
        with (self._folder / "ballast").open("ab", buffering=0) as file:
            for size in (65536, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass
            file.truncate(file.tell() - leave)

    def make_room(self) -> None:
        """As if somebody had tidied up."""
        (self._folder / "ballast").unlink()

    def state(self) -> dict[str, Any]:
        """What the bridge says of itself."""
        found: dict[str, Any] = json.loads((self._folder / "queue" / "state.json").read_text())
        return found

    def bad(self) -> list[Path]:
        """Files that either side could not read."""
        return [*self._folder.glob("queue/*/bad/*")]


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(400)
@pytest.mark.skipif(
    subprocess.run([*_SMALL, "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="needs unshare, and leave to mount a small file system in a namespace",
)
def test_a_full_disk(machine: Machine) -> None:
    """While the queue's disk is full the bridge, the REST API and health say so; nothing is lost
    or torn, and all goes on by itself when there is room."""
    disk = SmallDisk(machine)
    api = f"http://127.0.0.1:{machine.environ['SWITCHBOARD_HTTP_PORT']}"
    health = f"http://127.0.0.1:{machine.environ['SWITCHBOARD_HEALTH_PORT']}"
    whatsapp = f"http://127.0.0.1:{machine.environ['SWITCHBOARD_WHATSAPP_CONTROL_PORT']}"
    contact = "972501234567"
    http = httpx.Client(headers={"X-API-Key": API_KEY}, timeout=60, trust_env=False)

    def provider() -> dict[str, Any]:
        found: dict[str, Any] = http.get(f"{api}/api/whatsapp/status").json()["provider"]
        return found

    def component() -> dict[str, Any]:
        report = http.get(f"{health}/api/health/detailed").json()
        found: dict[str, Any] = report["components"]["whatsapp_baileys"]
        return found

    def files() -> list[dict[str, Any]]:
        listed = http.get(f"{api}/api/whatsapp/messages", params={"contact": f"+{contact}"}).json()
        return [file for message in listed["messages"] for file in message["media"]]

    def shown() -> list[str]:
        received = http.get(f"{whatsapp}/contacts/{contact}").json()["received"]
        return [one["content"]["text"] for one in received]

    with http, machine.running() as run:
        disk.seen_by(run.process.pid)
        assert machine.say("Is the flat in Haifa still free?").returncode == 0
        disk.fill(leave=128 * 1024)
        picture = base64.b64encode(b"x" * 512 * 1024).decode()
        written = {"type": "media", "media": "image", "mimetype": "image/png", "data": picture}
        written["caption"] = "Is this the balcony?"
        http.post(f"{whatsapp}/contacts/{contact}/messages", json=written).raise_for_status()
        sending = {"to": f"+{contact}", "body": "A colleague will call"}
        sent = http.post(f"{api}/api/whatsapp/send", json=sending).raise_for_status().json()
        until(lambda: disk.state()["state"] == "blocked")
        assert "no space is left on the disk" in disk.state()["reason"]
        until(lambda: provider()["state"] == "unavailable")
        assert "no space is left on the disk" in provider()["reason"]
        until(lambda: component()["status"] == "down")
        assert "no space is left on the disk" in component()["reason"]
        # Without a byte it still says so, and doesn't try in between.
        disk.fill()
        then = disk.state()
        until(lambda: disk.state()["written_at"] > then["written_at"])
        assert disk.state()["since"] == then["since"]
        disk.make_room()
        until(lambda: disk.state()["state"] == "open")
        until(lambda: sending["body"] in shown())
        until(lambda: machine.bodies().count(written["caption"]) == 1)
        until(lambda: [file["size_bytes"] for file in files()] == [512 * 1024])
        until(lambda: len(shown()) == 3)
        until(lambda: provider()["state"] != "unavailable")
        message = http.get(f"{api}/api/whatsapp/messages/{sent['id']}").json()
        assert message["status"] in ("sent", "delivered", "read")
        assert disk.bad() == []
        until(lambda: component()["status"] == "ok")


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
