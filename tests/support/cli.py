"""The command line as a process."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.sandbox import ACCOUNT_SID, OUR_NUMBER, PUBLIC_HOST

MESSAGING = {
    "PUBLIC_HOST": PUBLIC_HOST,
    "GRPC_TOKEN": "token",
    "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
    "TWILIO_AUTH_TOKEN": "auth-token",
    "TWILIO_WHATSAPP_NUMBER": OUR_NUMBER,
    "SLOW_QUERY_MS": "60000",
}
"""What messaging requires, but for its database and NATS."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def start(
    *arguments: str, folder: Path, environ: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start a command in a folder, with these variables alone."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli",
        *arguments,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process, said: str = "") -> Ended:
    """Wait for a command's end, having typed `said`."""
    async with asyncio.timeout(120):
        out, err = await process.communicate(said.encode())
    code = process.returncode
    assert code is not None
    return Ended(code, out.decode(), err.decode())
