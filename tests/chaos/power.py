"""What a power cut leaves of NATS' files, from the system calls it really makes.

A power cut loses what was written and not yet synced. Which of it, no test can know; lost here is
all of it, as far as messages go: each block of messages is cut to the length it had when the last
sync of it began. Everything else of NATS' files stays as it was written, in NATS' favour.

Needs `strace`, and leave to trace one's own children.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_ATTACHED_SECONDS = 10
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_WRITE = re.compile(
    r"^pwrite64\(\d+<(?P<path>[^>]+\.blk)>, .*?, \d+, (?P<at>\d+)\) += (?P<done>\d+)"
)
_SYNC = re.compile(r"^(?:fsync|fdatasync)\(\d+<(?P<path>[^>]+\.blk)>")


@asynccontextmanager
async def tracing(process: int, *arguments: str) -> AsyncIterator[None]:
    """`strace` on a process and all its threads while the context lasts.

    Raises:
        RuntimeError: It may not.
    """
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-p", str(process), *arguments,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert tracer.stderr is not None
    try:
        async with asyncio.timeout(_ATTACHED_SECONDS):
            said = await tracer.stderr.readline()
        if b"attached" not in said:
            raise RuntimeError(f"strace can't trace: {said.decode().strip()}")
        # Its other words are of no use, and a full pipe would hold it up.
        draining = asyncio.create_task(tracer.stderr.read())
        yield
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGINT)
        await tracer.wait()
    await draining


def synced(lines: Iterable[str]) -> dict[Path, int]:
    """The length up to which each block of messages was synced, of those written since then.

    Args:
        lines: What `strace -f -y` wrote of pwrite64, fsync and fdatasync.
    """
    begun: dict[str, str] = {}
    lengths: dict[str, int] = {}
    durable: dict[str, int] = {}
    syncing: dict[str, tuple[str, int]] = {}
    for line in lines:
        if (call := _CALL.match(line)) is None:
            continue
        thread, text = call["pid"], call["rest"]
        if resumed := _RESUMED.match(text):
            text = begun.pop(thread, "") + resumed["rest"]
        elif text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            if sync := _SYNC.match(text):
                syncing[thread] = sync["path"], lengths.get(sync["path"], 0)
            continue
        if write := _WRITE.match(text):
            path, at = write["path"], int(write["at"])
            # What was there before the trace began counts as synced.
            durable.setdefault(path, at)
            lengths[path] = max(lengths.get(path, 0), at + int(write["done"]))
        elif (sync := _SYNC.match(text)) and text.endswith("= 0"):
            path, length = syncing.pop(thread, (sync["path"], lengths.get(sync["path"], 0)))
            durable[path] = max(durable.get(path, 0), length)
    return {Path(path): length for path, length in durable.items() if path in lengths}


def cut(lengths: dict[Path, int]) -> int:
    """Cut files to these lengths; returns how many bytes that takes away."""
    lost = 0
    for file, length in lengths.items():
        if file.exists() and (there := file.stat().st_size) > length:
            os.truncate(file, length)
            lost += there - length
    return lost


TRACED: Sequence[str] = ("-y", "-s", "0", "-e", "trace=pwrite64,fsync,fdatasync")
