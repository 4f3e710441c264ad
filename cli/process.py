"""One child process: its log, its last words and its end."""

import asyncio
import collections
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PLAIN_TROUBLE = re.compile(r"^(WARNING|ERROR|CRITICAL)\b|\[(WRN|ERR|FTL)\]")
_PR_SET_PDEATHSIG = 1
_LONGEST_GIST = 300


class Child:
    """A running process whose output goes to a file, and whose warnings are shown.

    The log of the run before is kept beside it as `<name>.log.1`.
    """

    def __init__(self, name: str, log: Path, show: Callable[[str], None]) -> None:
        self.name = name
        self.log = log
        self._show = show
        self._last_lines: collections.deque[str] = collections.deque(maxlen=15)

    async def start(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start the process in a group of its own: Ctrl-C reaches only us, who stop in order.

        Raises:
            OSError: The program isn't there or can't be executed.
        """
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch(mode=0o600)
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1024 * 1024,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._pump = asyncio.create_task(self._copy_output())

    async def wait(self) -> int:
        """Its exit code, once it has ended and its output is in the log."""
        code = await self._process.wait()
        await asyncio.shield(self._pump)
        return code

    @property
    def running(self) -> bool:
        """Whether it hasn't ended yet."""
        return self._process.returncode is None

    def obituary(self, code: int) -> str:
        """How it ended, with its last lines."""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        words = "".join(f"\n    {line}" for line in self._last_lines)
        said = f" Its last lines:{words}\n  All of it: {self.log}" if words else " It said nothing."
        return f"{self.name} {how}.{said}"

    async def stop(self, grace_seconds: float) -> bool:
        """Ask it to end, and kill it after `grace_seconds`; whether it ended by itself."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            return False
        finally:
            await self.wait()
        return True

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _copy_output(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - it was asked for as a pipe
        with self.log.open("wb", buffering=0) as log:
            while True:
                try:
                    line = await output.readuntil(b"\n")
                except asyncio.IncompleteReadError as end:
                    line = end.partial
                except asyncio.LimitOverrunError as overrun:
                    line = await output.read(overrun.consumed)
                if not line:
                    return
                with contextlib.suppress(OSError):  # A full disk must not stall the child.
                    log.write(line)
                text = line.decode(errors="replace").rstrip()
                self._last_lines.append(text)
                if trouble := trouble_in(text):
                    self._show(f"{self.name}: {trouble}")


def trouble_in(line: str) -> str | None:
    """The gist of a log line that is a warning or worse, else None."""
    try:
        record = json.loads(line)
    except ValueError:
        return line if _PLAIN_TROUBLE.search(line) else None
    if not isinstance(record, dict) or record.get("level") not in ("warning", "error", "critical"):
        return None
    hidden = {"event", "level", "timestamp", "service", "logger", "exception"}
    details = "".join(f" {key}={value}" for key, value in record.items() if key not in hidden)
    gist = f"{record['level']}: {record.get('event')}{details}"
    return gist if len(gist) <= _LONGEST_GIST else f"{gist[:_LONGEST_GIST]}… (all of it in the log)"


# Looked up before any fork: the child may hardly do anything before exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Let the kernel kill this child when its parent dies, however it dies (Linux only).

    Otherwise a killed `switchboard run` leaves children behind that hold its ports.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
