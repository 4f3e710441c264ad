"""Starting parts one after the other, watching them, and stopping them in reverse."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cli.process import Child

START_SECONDS = 60.0
GRACE_SECONDS = 25.0
"""More than a service takes to drain."""


@dataclass(frozen=True)
class Part:
    """A process of the stack.

    Attributes:
        ready: Whether it does its work now; asked again and again while it starts. None for
            a part that is done when it exits with 0.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]] | None


class PartFailedError(Exception):
    """A part didn't start, or ended by itself; the text says which and how."""


class Supervisor:
    """Runs parts as child processes."""

    def __init__(self, console: Console, log_folder: Path) -> None:
        self._console = console
        self._log_folder = log_folder
        self._children: list[Child] = []

    async def start(self, part: Part) -> None:
        """Start a part and wait until it is ready, or for a part without probe, done.

        Raises:
            PartFailedError: It ended, or wasn't ready within a minute.
        """
        child = Child(part.name, self._log_folder / f"{part.name}.log", self._warn)
        began = time.monotonic()
        with self._progress(f"Starting {part.name}"):
            try:
                await child.start(part.command, part.environ)
            except OSError as error:
                raise PartFailedError(f"{part.name} can't be started: {error}.") from error
            self._children.append(child)
            if part.ready is None:
                await self._until_done(child)
            else:
                await self._until_ready(child, part.ready)
        outcome = "done" if part.ready is None else "ready"
        self._tick(f"{part.name} {outcome} ({time.monotonic() - began:.1f} s)")

    async def watch(self) -> None:
        """Wait until a part ends, which none should.

        Raises:
            PartFailedError: Always.
        """
        ends = {asyncio.create_task(child.wait()): child for child in self._children}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        raise PartFailedError(" ".join(ends[end].obituary(end.result()) for end in done))

    async def stop(self) -> None:
        """Stop what runs, the last started first; kill what doesn't end in time."""
        for child in reversed(self._children):
            if not child.running:
                continue
            with self._progress(f"Stopping {child.name}"):
                in_time = await child.stop(GRACE_SECONDS)
            self._tick(f"{child.name} stopped" if in_time else f"{child.name} had to be killed")

    def kill(self) -> None:
        """End everything at once."""
        for child in self._children:
            child.kill()

    async def _until_done(self, child: Child) -> None:
        code = await child.wait()
        self._children.remove(child)
        if code != 0:
            raise PartFailedError(child.obituary(code))

    async def _until_ready(self, child: Child, ready: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while child.running:
            if await ready():
                return
            if time.monotonic() > deadline:
                raise PartFailedError(
                    f"{child.name} wasn't ready within {START_SECONDS:.0f} s. Its log: {child.log}"
                )
            await asyncio.sleep(0.1)
        raise PartFailedError(child.obituary(await child.wait()))

    @contextlib.contextmanager
    def _progress(self, text: str) -> Iterator[None]:
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self._say(text)
            yield

    def _tick(self, text: str) -> None:
        mark = "[green]✓[/] " if self._console.is_terminal else ""
        self._console.print(f"  {mark}{text}", highlight=False, soft_wrap=True)

    def _warn(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
