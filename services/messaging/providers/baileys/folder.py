"""The folder that messaging shares with the Baileys bridge: docs/baileys-queue.md.

Everything here blocks: call it in a thread. Either side may be killed between any two lines.
"""

import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.messaging.providers.baileys.disk import (
    QueueUnusableError,
    read,
    read_if_there,
    usable,
)
from services.messaging.providers.baileys.parsing import MAX_BYTES, BadDocumentError, Problem

OUTBOX_LIMIT: Final = 1000
"""So many sends may wait; what is more is tried later."""

ANSWER_SECONDS: Final = 3600.0
UNFINISHED_SECONDS: Final = 3600.0
MEDIA_SECONDS: Final = 7 * 86_400.0

_FOLDERS: Final = (
    *(f"outbox/{name}" for name in ("new", "cur", "done", "bad", "tmp")),
    *(f"inbox/{name}" for name in ("new", "cur", "bad", "tmp")),
    "media/tmp",
)
_NAME: Final = re.compile(r"[0-9]{16}-[A-Za-z0-9_-]{1,80}\.json", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TakenFile:
    """A file of the inbox that this process works on: its content, or why it has none."""

    name: str
    content: bytes | BadDocumentError


class QueueFolder:
    """messaging's side of the folder.

    Args:
        root: `BAILEYS_QUEUE_DIR`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last_time = 0

    def create(self) -> None:
        """Create the folders that are missing.

        Raises:
            QueueUnusableError: The folder can't be written to.
        """
        with usable():
            for name in _FOLDERS:
                (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Create what is missing, and put in order what a process that was killed left behind.

        Raises:
            QueueUnusableError: The folder can't be written to.
        """
        self.create()
        with usable():
            for name in self._names("inbox/cur"):
                with contextlib.suppress(FileNotFoundError):
                    self._move(f"inbox/cur/{name}", f"inbox/new/{name}")
        self.tidy()

    def tidy(self) -> None:
        """Remove what is too old.

        Raises:
            QueueUnusableError: The folder can't be written to.
        """
        with usable():
            self._forget("outbox/tmp", UNFINISHED_SECONDS)
            self._forget("outbox/done", ANSWER_SECONDS)
            self._forget("media", MEDIA_SECONDS)
            self._forget("media/tmp", MEDIA_SECONDS)

    def put_send(self, content: bytes, unique: str) -> str:
        """Hand a send to the bridge; returns the file's name.

        Raises:
            QueueUnusableError: It was not handed over.
        """
        with usable():
            if len(self._names("outbox/new")) >= OUTBOX_LIMIT:
                raise QueueUnusableError("queue_full", f"has {OUTBOX_LIMIT} sends waiting")
            name = f"{self._next_time():016}-{unique}.json"
            self._put(content, f"outbox/tmp/{name}", f"outbox/new/{name}")
        # The bridge may be sending it by now: what became of it is for its answer to tell.
        with contextlib.suppress(OSError):
            self._sync(f"outbox/new/{name}")
        return name

    def withdraw_send(self, name: str) -> bool:
        """Take a send back; False when the bridge has taken it.

        Raises:
            QueueUnusableError: It can't be told.
        """
        with usable():
            try:
                self._move(f"outbox/new/{name}", f"outbox/tmp/{name}")
            except FileNotFoundError:
                return False
            (self.root / "outbox/tmp" / name).unlink(missing_ok=True)
            return True

    def take_answer(self, name: str) -> bytes | None:
        """The bridge's answer to a send; None while there is none. Once read, it is gone.

        Raises:
            BadDocumentError: It can't be read.
            QueueUnusableError: It can't be told.
        """
        path = self.root / "outbox/done" / name
        try:
            return read_if_there(path, MAX_BYTES)
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def take_events(self, limit: int) -> list[TakenFile]:
        """What WhatsApp said, the oldest first, claimed for this process.

        Raises:
            QueueUnusableError: The folder can't be used.
        """
        taken: list[TakenFile] = []
        with usable():
            for name in self._names("inbox/new")[:limit]:
                if not _NAME.fullmatch(name):
                    reason = BadDocumentError(Problem.FOREIGN, "has a name that no event has")
                    self._set_aside("new", name, reason)
                    continue
                try:
                    self._move(f"inbox/new/{name}", f"inbox/cur/{name}")
                    taken.append(TakenFile(name, read(self.root / "inbox/cur" / name)))
                except FileNotFoundError:
                    continue  # Another process of messaging was faster.
                except BadDocumentError as error:
                    taken.append(TakenFile(name, error))
        return taken

    def drop_event(self, name: str) -> None:
        """Forget an event that the journal has.

        Raises:
            QueueUnusableError: It is still there.
        """
        with usable():
            (self.root / "inbox/cur" / name).unlink(missing_ok=True)

    def set_event_aside(self, name: str, reason: BadDocumentError) -> None:
        """Keep an event that can't be read, for people to look at.

        Raises:
            QueueUnusableError: It is still where it was.
        """
        with usable():
            self._set_aside("cur", name, reason)

    def read_state(self) -> bytes | None:
        """The content of `state.json`; None when there is none.

        Raises:
            BadDocumentError: It is too large, or no file.
            QueueUnusableError: It can't be read.
        """
        return read_if_there(self.root / "state.json", MAX_BYTES)

    def count_bad(self) -> int:
        """How many files wait for a person in both `bad/` folders.

        Raises:
            QueueUnusableError: The folder can't be read.
        """
        with usable():
            names = [*self._names("outbox/bad"), *self._names("inbox/bad")]
        return sum(not name.endswith(".reason") for name in names)

    def read_media(self, sha256: str, max_bytes: int) -> bytes | None:
        """A file of `media/`; None when there is none.

        Raises:
            BadDocumentError: It is too large, or no file.
            QueueUnusableError: It can't be read.
        """
        if not _SHA256.fullmatch(sha256):
            return None
        return read_if_there(self.root / "media" / sha256, max_bytes)

    def put_media(self, content: bytes, sha256: str) -> None:
        """Store a file for a message that goes out.

        Raises:
            QueueUnusableError: It was not stored.
        """
        with usable():
            self._write(content, f"media/tmp/{secrets.token_hex(16)}", f"media/{sha256}")

    def _next_time(self) -> int:
        self._last_time = max(time.time_ns() // 1000, self._last_time + 1)
        return self._last_time

    def _names(self, folder: str) -> list[str]:
        with os.scandir(self.root / folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False)
            )

    def _write(self, content: bytes, unfinished: str, target: str) -> None:
        self._put(content, unfinished, target)
        self._sync(target)

    def _put(self, content: bytes, unfinished: str, target: str) -> None:
        """Write a file, which is at its target if and only if nothing is raised."""
        path = self.root / unfinished
        try:
            file = os.open(path, _WRITE, 0o600)
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            finally:
                os.close(file)
            path.rename(self.root / target)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    def _move(self, source: str, target: str) -> None:
        (self.root / source).rename(self.root / target)
        self._sync(target)

    def _sync(self, name: str) -> None:
        folder = os.open((self.root / name).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _set_aside(self, folder: str, name: str, reason: BadDocumentError) -> None:
        free = name
        number = 0
        while os.path.lexists(self.root / "inbox/bad" / free):
            number += 1
            free = f"{name}.{number}"
        # First the reason: on a full disk the file waits where it is, and no reason is missing.
        target = f"inbox/bad/{free}.reason"
        self._write(f"{reason}\n".encode(), f"outbox/tmp/{secrets.token_hex(16)}", target)
        try:
            self._move(f"inbox/{folder}/{name}", f"inbox/bad/{free}")
        except FileNotFoundError:
            # Another process of messaging was faster.
            (self.root / target).unlink(missing_ok=True)

    def _forget(self, folder: str, seconds: float) -> None:
        before = time.time() - seconds
        for name in self._names(folder):
            path = self.root / folder / name
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    path.unlink()
