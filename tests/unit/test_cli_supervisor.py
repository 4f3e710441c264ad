"""Starting, watching and stopping real processes."""

import asyncio
import io
import os
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli.supervisor import Part, PartFailedError, Supervisor
from tests.support.processes import is_running

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(shown: io.StringIO, tmp_path: Path) -> Supervisor:
    return Supervisor(Console(file=shown), tmp_path)


def part(name: str, program: str, log_folder: Path | None = None) -> Part:
    async def up() -> bool:
        return log_folder is None or "up" in (log_folder / f"{name}.log").read_text()

    return Part(name, [sys.executable, "-c", program], dict(os.environ), up)


async def test_parts_stop_in_reverse_order(
    supervisor: Supervisor, shown: io.StringIO, tmp_path: Path
) -> None:
    """What was started last, and depends on the others, ends first."""
    await supervisor.start(part("first", SLEEPS, tmp_path))
    await supervisor.start(part("second", SLEEPS, tmp_path))
    await supervisor.stop()
    lines = [line.strip() for line in shown.getvalue().splitlines() if "stopped" in line]
    assert lines == ["second stopped", "first stopped"]


async def test_a_part_that_dies_is_named_with_its_code_and_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """The sentence is enough to begin looking."""
    await supervisor.start(part("steady", SLEEPS, tmp_path))
    dies = tmp_path / "dies"
    dying = f"""
import pathlib, sys, time
print('up', flush=True)
while not pathlib.Path({str(dies)!r}).exists():
    time.sleep(0.01)
sys.exit('no more')
"""
    await supervisor.start(part("frail", dying, tmp_path))
    dies.touch()
    with pytest.raises(PartFailedError, match=r"(?s)frail exited with 1.*no more") as failure:
        await supervisor.watch()
    assert "steady" not in str(failure.value)
    await supervisor.stop()


async def test_a_part_that_dies_while_starting_is_not_waited_for(supervisor: Supervisor) -> None:
    """A start that can't succeed is over at once."""
    began = time.monotonic()

    async def never() -> bool:
        return False

    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with pytest.raises(PartFailedError, match="frail was killed by SIGKILL"):
        await supervisor.start(Part("frail", command, dict(os.environ), never))
    assert time.monotonic() - began < 30


async def test_a_missing_program_is_a_sentence(supervisor: Supervisor) -> None:
    """No traceback for a tool that isn't installed."""
    with pytest.raises(PartFailedError, match=r"ghost can't be started: .*no-such-program"):
        await supervisor.start(Part("ghost", ["no-such-program"], dict(os.environ), None))


async def test_a_part_that_ignores_the_request_to_stop_is_killed(
    supervisor: Supervisor,
    shown: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C always ends."""
    monkeypatch.setattr("cli.supervisor.GRACE_SECONDS", 0.2)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
    await supervisor.start(part("deaf", deaf, tmp_path))
    await supervisor.stop()
    assert "deaf had to be killed" in shown.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the death")
async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """A killed `switchboard run` leaves nothing behind that would hold its ports."""
    parent_program = f"""
import asyncio, sys
from pathlib import Path
from cli.process import Child
async def main():
    child = Child("child", Path({str(tmp_path)!r}) / "child.log", print)
    await child.start([sys.executable, "-c", "import os, time; time.sleep(60)"], {{}})
    print(child._process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent_program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.communicate()
    async with asyncio.timeout(60):
        while is_running(child):  # noqa: ASYNC110 - another process tells us nothing
            await asyncio.sleep(0.02)


async def test_a_flood_of_output_and_endless_lines_do_not_stall_a_part(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """A part can log whatever it likes without being held up."""
    flood = "print('x' * 3_000_000); print('y\\n' * 100_000); print('end')"
    command = [sys.executable, "-c", flood]
    await supervisor.start(Part("loud", command, dict(os.environ), None))
    assert (tmp_path / "loud.log").stat().st_size == 3_000_001 + 200_001 + 4
