"""Files for the bridge to send, and files that it has received."""

import asyncio
import hashlib
import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

from yarl import URL

from services.messaging.ports.media import File, MediaUnobtainableError
from services.messaging.providers.baileys.disk import VARIABLE
from services.messaging.providers.baileys.documents import QueueFile
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.file_body import read_file
from services.messaging.providers.guarded_http import GuardedHttp, parsed_url, redirected, within

MAX_MEDIA_BYTES: Final = 16 * 1024 * 1024

_SCHEME: Final = "baileys:"
_MOST_REDIRECTS: Final = 5
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,127}")
_MAX_NAME: Final = 255


class OutgoingFiles:
    """Gets files from where callers say they are.

    Args:
        local: They may be on this machine. For the sandbox.
        timeout_seconds: For one file in all, redirects included.
    """

    def __init__(
        self, *, local: bool, timeout_seconds: float = 20.0, max_bytes: int = MAX_MEDIA_BYTES
    ) -> None:
        self._http = GuardedHttp(local=local)
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes

    async def fetch(self, url: str) -> tuple[QueueFile, bytes]:
        """The file at an address.

        Raises:
            MediaUnobtainableError: It isn't there, is too large, or its address is forbidden.
            UnavailableError: Its host doesn't answer now.
        """
        address = parsed_url(url)
        async with within(self._timeout_seconds):
            for _ in range(_MOST_REDIRECTS + 1):
                found = await self._get(address)
                if not isinstance(found, URL):
                    sha256 = await asyncio.to_thread(_sha256, found.content)
                    file = QueueFile(
                        sha256=sha256, size=len(found.content), mimetype=found.content_type
                    )
                    return file, found.content
                address = found
        raise MediaUnobtainableError(f"it is redirected more than {_MOST_REDIRECTS} times")

    def name_of(self, url: str) -> str | None:
        """The file's name by its address, if that tells."""
        return unquote(PurePosixPath(parsed_url(url).raw_path).name)[:_MAX_NAME] or None

    async def _get(self, url: URL) -> File | URL:
        async with self._http.ask("GET", url) as response:
            target = redirected(url, response)
            if target is not None:
                return target
            content = await read_file(response, max_bytes=self._max_bytes)
            said = response.content_type.lower()
            kind = said if _TYPE.fullmatch(said) else "application/octet-stream"
            return File(content, kind)


def media_url(file: QueueFile) -> str:
    """The address by which `ReceivedFiles` finds a file."""
    return f"{_SCHEME}{file.sha256}:{file.mimetype}"


class ReceivedFiles:
    """`MediaSource` for what the bridge has put into the folder."""

    def __init__(self, folder: QueueFolder, *, max_bytes: int = MAX_MEDIA_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    async def fetch(self, url: str) -> File:
        """The file at an address that `media_url` made.

        Raises:
            MediaUnobtainableError: It is gone, too large, or not what the bridge said.
            UnavailableError: The folder can't be read now.
        """
        sha256, _, mimetype = url.removeprefix(_SCHEME).partition(":")
        return await asyncio.to_thread(self._read, sha256, mimetype)

    def _read(self, sha256: str, mimetype: str) -> File:
        try:
            content = self._folder.read_media(sha256, self._max_bytes)
        except BadDocumentError as error:
            raise MediaUnobtainableError(str(error)) from error
        if content is None:
            raise MediaUnobtainableError(f"it is no longer in {VARIABLE}")
        if _sha256(content) != sha256:
            raise MediaUnobtainableError("its content is not what the bridge said it is")
        return File(content, mimetype)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
