"""The folder that `switchboard run` keeps its data in, and who is using it."""

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Addresses:
    """Where a running stack answers.

    Attributes:
        sandbox: Origin of the pretend Twilio; None with a real configuration.
        whatsapp: Origin of the pretend WhatsApp's control interface; None without one.
        grpc_token: Token for messaging.
        nats_url: The journal, its token included.
        database_url: The database, its password included.
    """

    webhook: str
    health: str
    grpc: str
    grpc_token: str
    nats_url: str
    database_url: str
    sandbox: str | None
    whatsapp: str | None


class FolderInUseError(Exception):
    """Another run has the folder."""


class NotRunningError(Exception):
    """No run has the folder, or it isn't ready yet; the text says which."""


class DataFolder:
    """The folder, taken for one run by a lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self._run_file = self.path / "run.json"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make the folder and take it.

        Raises:
            FolderInUseError: Another run has it.
            OSError: It can't be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        lock = os.open(self._run_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise FolderInUseError from None
        os.ftruncate(lock, 0)
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)

    def publish(self, addresses: Addresses) -> None:
        """Tell other commands where the stack answers."""
        write_private(self._run_file, json.dumps(asdict(addresses)))

    def addresses(self) -> Addresses:
        """Where the run that has this folder answers.

        Raises:
            NotRunningError: There is none, or it isn't ready yet.
        """
        try:
            file = self._run_file.open()
        except FileNotFoundError:
            raise NotRunningError("Switchboard isn't running: start it with `make run`") from None
        with file:
            if _is_free(file.fileno()):
                raise NotRunningError("Switchboard isn't running: start it with `make run`")
            content = file.read()
        if not content:
            raise NotRunningError("Switchboard is still starting: wait for `Switchboard is ready`")
        return Addresses(**json.loads(content))

    def token(self, name: str) -> str:
        """A secret made at the first call and kept from then on."""
        file = self.path / f"{name}.token"
        if not file.exists():
            write_private(file, secrets.token_urlsafe(32))
        return file.read_text()


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner reads."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(content)
