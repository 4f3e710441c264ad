"""Fetching the files that contacts send, from Twilio and from nowhere else.

A file's address comes with a webhook. Twilio answers it with a redirect to a short-lived address
at a host of its own choosing (https://www.twilio.com/docs/messaging/api/media-resource). The
account's credentials go to Twilio's own hosts only, never along with a redirect.
"""

from collections.abc import Mapping
from typing import Final

import aiohttp
from pydantic import SecretStr
from yarl import URL

from services.messaging.domain.whatsapp_media import MAX_BYTES
from services.messaging.ports.media import File, MediaUnobtainableError
from services.messaging.providers.file_body import TEMPORARY, read_file
from services.messaging.providers.guarded_http import (
    GuardedHttp,
    is_on_this_machine,
    parsed_url,
    redirected,
    within,
)
from services.messaging.providers.twilio.hosts import TwilioHosts

_TIMEOUT_SECONDS: Final = 30.0
# 401 and 403: someone has to mend the credentials. 404: the file may not be there yet.
_MAY_CHANGE: Final = TEMPORARY | {401, 403, 404}


class TwilioMedia:
    """`MediaSource` on Twilio.

    Args:
        base_url: Of Twilio's REST API. When it is on this machine, as the sandbox is, files may
            come from this machine, too.
        max_bytes: A larger file is not taken.
        timeout_seconds: For one file in all, the redirect included.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: SecretStr,
        base_url: str,
        max_bytes: int = MAX_BYTES,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._authorization = aiohttp.encode_basic_auth(account_sid, auth_token.get_secret_value())
        self._hosts = TwilioHosts(base_url)
        self._http = GuardedHttp(local=is_on_this_machine(base_url))
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def fetch(self, url: str) -> File:
        """The file at an address that Twilio gave.

        Raises:
            MediaUnobtainableError: It is no address of Twilio's, leads to a forbidden one, is too
                large, or is gone.
            UnavailableError: Twilio didn't answer, or not yet with the file.
        """
        address = parsed_url(url)
        if not self._hosts.own(address):
            raise MediaUnobtainableError("its address is not one of Twilio's")
        async with within(self._timeout_seconds):
            found = await self._get(address, {"Authorization": self._authorization})
            if isinstance(found, URL):
                # Without credentials, wherever it leads.
                found = await self._get(found, {})
            if isinstance(found, URL):
                raise MediaUnobtainableError("it is redirected more than once")
            return found

    async def _get(self, url: URL, headers: Mapping[str, str]) -> File | URL:
        """The file, or where we are sent for it."""
        async with self._http.ask("GET", url, headers) as response:
            target = redirected(url, response)
            if target is not None:
                return target
            content = await read_file(response, max_bytes=self._max_bytes, may_change=_MAY_CHANGE)
            return File(content, response.content_type)
