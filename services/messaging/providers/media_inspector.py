"""What a host says of a file that is to be sent, before the provider is asked to fetch it there.

Without credentials, and guarded: the address is a caller's.
"""

import re
from typing import Final

import aiohttp
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.ports.media import FileFacts, MediaUnobtainableError
from services.messaging.providers.file_body import TEMPORARY
from services.messaging.providers.guarded_http import GuardedHttp, parsed_url, redirected, within

_MOST_REDIRECTS: Final = 5
_CONTENT_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,127}")


class HttpMediaInspector:
    """`MediaInspector` by asking the host.

    Args:
        local: Files may be on this machine, as they are when the sandbox stands for the provider.
        timeout_seconds: For one file in all, redirects included.
    """

    def __init__(self, *, local: bool, timeout_seconds: float) -> None:
        self._http = GuardedHttp(local=local)
        self._timeout_seconds = timeout_seconds

    async def inspect(self, url: str) -> FileFacts:
        """What the file's host says of it.

        Raises:
            MediaUnobtainableError: Its address leads to a forbidden one, or it isn't there.
            UnavailableError: The host gave no good answer in time.
        """
        address = parsed_url(url)
        async with within(self._timeout_seconds):
            # Twilio asks with both, too.
            status, facts = await self._head(address) or await self._follow("GET", address)
            if status in TEMPORARY or status >= 500:
                raise UnavailableError(f"the answer was HTTP {status}")
            if status != 200:
                raise MediaUnobtainableError(f"the answer was HTTP {status}")
            return facts

    async def _head(self, url: URL) -> tuple[int, FileFacts] | None:
        """None where a HEAD is of no use, as at addresses that are signed for GET alone."""
        try:
            status, facts = await self._follow("HEAD", url)
        except aiohttp.ClientResponseError:
            # No HTTP, for example because a body follows, as it must not.
            return None
        return (status, facts) if status == 200 and facts.content_type else None

    async def _follow(self, method: str, url: URL) -> tuple[int, FileFacts]:
        for _ in range(_MOST_REDIRECTS + 1):
            async with self._http.ask(method, url) as response:
                # Whatever body follows the head is not waited for.
                response.close()
                target = redirected(url, response)
                if target is None:
                    return response.status, _facts(response)
            url = target
        raise MediaUnobtainableError(f"it is redirected more than {_MOST_REDIRECTS} times")


def _facts(response: aiohttp.ClientResponse) -> FileFacts:
    said = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return FileFacts(
        content_type=said if _CONTENT_TYPE.fullmatch(said) else "",
        size_bytes=response.content_length,
    )
