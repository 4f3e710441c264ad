"""Reading a file from an answer: a whole one, as it is, and no larger than it may be."""

from collections.abc import Container
from typing import Final

import aiohttp

from services.common.errors import UnavailableError
from services.messaging.ports.media import MediaUnobtainableError

TEMPORARY: Final = frozenset({408, 425, 429})
"""Refusals of the moment."""

_CHUNK_BYTES: Final = 64 * 1024


async def read_file(
    response: aiohttp.ClientResponse, *, max_bytes: int, may_change: Container[int] = TEMPORARY
) -> bytes:
    """The content of an answer that is no redirect.

    Args:
        may_change: Refusals after which asking again later may help.

    Raises:
        MediaUnobtainableError: It isn't there, is compressed or too large.
        UnavailableError: Asking again later may help.
        aiohttp.ClientError: It didn't arrive whole.
    """
    if response.status in may_change or response.status >= 500:
        raise UnavailableError(f"the answer was HTTP {response.status}")
    if response.status != 200:
        raise MediaUnobtainableError(f"the answer was HTTP {response.status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise MediaUnobtainableError("it comes compressed")
    too_large = MediaUnobtainableError(f"it is larger than {max_bytes} bytes")
    if (response.content_length or 0) > max_bytes:
        raise too_large
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise too_large
    return bytes(content)
