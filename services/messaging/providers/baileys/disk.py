"""The disk below the queue's folder: reading from it, and why it can't be used.

Everything here blocks: call it in a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.common.errors import UnavailableError
from services.messaging.providers.baileys.parsing import MAX_BYTES, BadDocumentError, Problem

VARIABLE: Final = "BAILEYS_QUEUE_DIR"

# Nobody's pipe must make us wait, and no link lead us elsewhere.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class QueueUnusableError(UnavailableError):
    """The folder can't be used now; the text says why.

    Attributes:
        code: `queue_full`, `queue_missing`, `queue_not_writable` or `queue_failed`.
    """

    def __init__(self, code: str, explanation: str) -> None:
        super().__init__(f"{VARIABLE} {explanation}")
        self.code = code


def read(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A regular file's content.

    Raises:
        BadDocumentError: It is too large, or no file.
        OSError: It can't be read.
    """
    try:
        file = os.open(path, _READ)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise BadDocumentError(Problem.NOT_A_FILE, "is a link or a device") from None
        raise
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise BadDocumentError(Problem.NOT_A_FILE, "is no regular file")
        if found.st_size > max_bytes:
            raise BadDocumentError(Problem.TOO_LARGE, f"has more than {max_bytes} bytes")
        return opened.read(max_bytes)


def read_if_there(path: Path, max_bytes: int) -> bytes | None:
    """A regular file's content; None when there is none.

    Raises:
        BadDocumentError: It is too large, or no file.
        QueueUnusableError: It can't be read.
    """
    with usable():
        try:
            return read(path, max_bytes)
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Says what keeps the folder from being used, in words that lead to the cause."""
    try:
        yield
    except FileNotFoundError as error:
        raise QueueUnusableError("queue_missing", "or a folder in it is gone") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise QueueUnusableError("queue_full", "has no space left on its disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise QueueUnusableError("queue_not_writable", "may not be written to") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise QueueUnusableError("queue_missing", "is no folder") from error
        words = os.strerror(error.errno) if error.errno else type(error).__name__
        raise QueueUnusableError("queue_failed", f"can't be used: {words}") from error
