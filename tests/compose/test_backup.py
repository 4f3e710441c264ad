"""The database is lost and restored by the commands of docs/operations.md."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.compose import ComposeStack

pytestmark = pytest.mark.timeout(900)

_ROOT = Path(__file__).parents[2]


def _commands(heading: str) -> list[list[str]]:
    """The commands of each block under a heading of the document, without `docker compose`."""
    text = (_ROOT / "docs" / "operations.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [
        [line.removeprefix("docker compose ") for line in block.splitlines()] for block in blocks
    ]


def _give(stack: ComposeStack, command: str) -> None:
    ended = subprocess.run(
        stack.shell(command), shell=True, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"


def test_what_came_after_the_backup_is_replayed(
    stack: ComposeStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dumped, dropped and restored, the database has all of it; nothing goes out twice."""
    monkeypatch.chdir(tmp_path)
    backup, restore = _commands("Backup and restore")
    stack.run_in("sandbox", "switchboard", "say", "--from=+972501110003", "Before the backup")
    for command in backup:
        _give(stack, command)
    stack.run_in("sandbox", "switchboard", "say", "--from=+972501110003", "After the backup")
    query = "SELECT direction, body, status FROM messages ORDER BY created_at, id"
    before = stack.sql(query)
    sent = len(stack.ask("sandbox", "http://127.0.0.1:8090/sandbox/messages"))
    for command in restore:
        _give(stack, command)
    assert stack.sql(query) == before
    said = stack.run_in("sandbox", "switchboard", "say", "--from=+972501110003", "And again")
    assert said.rstrip().endswith("read")
    assert len(stack.ask("sandbox", "http://127.0.0.1:8090/sandbox/messages")) == sent + 2


def test_passwords_between_the_parts_are_made_anew(stack: ComposeStack) -> None:
    """After the commands for that the parts know the new ones, and the old are gone."""
    (commands,) = _commands("Changing keys without downtime")
    before = stack.run_in("webhook", "cat", "/run/credentials/nats_url")
    for command in commands:
        _give(stack, command)
    assert stack.run_in("webhook", "cat", "/run/credentials/nats_url") != before
    said = stack.run_in("sandbox", "switchboard", "say", "--from=+972501110004", "Hello again")
    assert said.rstrip().endswith("read")
