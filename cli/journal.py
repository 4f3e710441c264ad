"""Finding and reaching the journal from the command line."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from cli.data_folder import Addresses, DataFolder, NotRunningError
from cli.environment import Environment, load_environment
from cli.run_settings import RunSettings
from services.common.environment import process_environment
from services.common.journal.client import NatsClient
from services.common.settings import split_list

_CONNECT_SECONDS = 5


class JournalError(Exception):
    """The journal can't be used; the text says why."""


class Installation:
    """What a command acts on.

    `NATS_URL` of the process wins; then a `switchboard run` in this data folder, which overrules
    the file of variables just so; then `NATS_URL` in that file.

    Attributes:
        running: Where a `switchboard run` answers, when that is what the command acts on.

    Raises:
        JournalError: None of them is there.
        FileNotFoundError: `env_file` was named and isn't there.
        ConfigurationError: The variables of `switchboard run` are malformed.
    """

    def __init__(self, env_file: Path | None) -> None:
        self.environment: Environment = load_environment(env_file, sandbox_allowed=True)
        self.running: Addresses | None = None
        told = process_environment()
        if not (told.get("NATS_URL") or told.get("NATS_URL_FILE")):
            settings = RunSettings.load(self.environment.variables)
            try:
                self.running = DataFolder(settings.switchboard_data_dir).addresses()
            except NotRunningError as error:
                if not self.environment.variables.get("NATS_URL"):
                    raise JournalError(f"{error}, or set NATS_URL") from None
        self.nats_url = (
            self.running.nats_url if self.running else self.environment.variables["NATS_URL"]
        )

    @property
    def place(self) -> str:
        """The journal's address without credentials."""
        return ", ".join(
            (part.netloc or part.path).rpartition("@")[2]
            for part in map(urlsplit, split_list(self.nats_url))
        )

    @contextlib.asynccontextmanager
    async def journal(self) -> AsyncIterator[JetStreamContext]:
        """A connection that is given up, not made anew, when it breaks.

        Raises:
            JournalError: NATS doesn't answer or refuses us.
        """
        # What it prints is for programs; what it logs is not part of that.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        client = NatsClient()
        try:
            await client.connect(
                list(split_list(self.nats_url)),
                name="switchboard-cli",
                allow_reconnect=False,
                connect_timeout=_CONNECT_SECONDS,
                reconnect_time_wait=0,
                error_cb=_ignore,
            )
        except (OSError, nats.errors.Error) as error:
            await _close(client)
            why = "it takes too long" if isinstance(error, TimeoutError) else str(error)
            raise JournalError(f"NATS at {self.place} can't be reached: {why}") from error
        try:
            yield client.jetstream()
        finally:
            await _close(client)


async def _ignore(_: Exception) -> None:
    """The exception that `connect` raises says it."""


async def _close(client: Client) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await client.close()
