"""Showing that something goes on: a bar on a terminal, a line every few seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_EVERY_SECONDS = 5.0


@contextlib.contextmanager
def progress(verb: str, total: int) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` steps. Everything goes to standard error."""
    console = Console(file=sys.stderr)
    if console.is_terminal:
        columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(verb, total=total)
            yield lambda: bar.advance(task)
        return
    done, said_at = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, said_at
        done += 1
        if time.monotonic() - said_at >= _EVERY_SECONDS:
            said_at = time.monotonic()
            print(f"{verb}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    yield advance
