"""What fetching and reading files needs, and the values that cross."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A stored file.

    Attributes:
        id: SHA-256 of the content, lower-case hexadecimal.
        content_type: One of a few that browsers may be given, else `application/octet-stream`.
    """

    id: str
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class File:
    """A whole file."""

    content: bytes
    content_type: str


class MediaStore(Protocol):
    """Files by the hash of their content."""

    async def put(self, file: File) -> StoredFile:
        """Store a file, once however often it comes.

        Raises:
            UnavailableError: It may or may not be stored: put it again.
        """
        ...

    async def read(self, file_id: str) -> File | None:
        """A file; None when there is none with this id.

        Raises:
            UnavailableError: It can't be read now.
        """
        ...


class MediaUnobtainableError(Exception):
    """A file can't be had, now or ever; the text says why and names no address."""


class MediaSource(Protocol):
    """Gets files from a provider."""

    async def fetch(self, url: str) -> File:
        """The file at an address that the provider gave.

        Raises:
            MediaUnobtainableError: Asking again would not help.
            UnavailableError: Asking again later may help; the text says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a host says of a file without giving it.

    Attributes:
        content_type: In lower case, without parameters; "" when the host doesn't say.
        size_bytes: None when the host doesn't say.
    """

    content_type: str
    size_bytes: int | None


class MediaInspector(Protocol):
    """Looks at files that the provider is to fetch from elsewhere."""

    async def inspect(self, url: str) -> FileFacts:
        """What the file's host says of it.

        Raises:
            MediaUnobtainableError: Asking again would not help.
            UnavailableError: Asking again later may help; the text says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class MediaTask:
    """A message some of whose files are still to be fetched.

    Attributes:
        urls: The files' addresses by their place in the message.
        attempt: Number of this attempt, from 1.
        lease_until: When another process may take over. It also tells this claim from others.
        traceparent: The request that brought the message; "" where that isn't known.
    """

    message_id: str
    provider: str
    urls: Mapping[int, str]
    attempt: int
    lease_until: datetime
    traceparent: str = ""


class MediaQueue(Protocol):
    """The table of messages whose files are to be fetched."""

    async def claim(self, *, limit: int, lease: timedelta) -> Sequence[MediaTask]:
        """Take messages whose time has come.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def settle(
        self,
        task: MediaTask,
        results: Mapping[int, StoredFile | str],
        retry_at: datetime | None,
    ) -> None:
        """Note what became of files, by their place; a text says why there will be none.

        Args:
            retry_at: When to fetch the others; None when there are none.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...
