"""What callers said, from Twilio and from nowhere else.

A recording's address comes with a webhook, as `RecordingUrl`; the file is there with ".wav" added,
at times a moment later than the webhook.
(https://www.twilio.com/docs/voice/api/recording#fetch-a-recordings-media-file)
"""

import asyncio
import re
from typing import Final

import aiohttp
from pydantic import SecretStr
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.ports.media import MediaUnobtainableError
from services.messaging.ports.speech import RecordingMissingError, RecordingRefusedError
from services.messaging.providers.file_body import TEMPORARY, read_file
from services.messaging.providers.guarded_http import (
    GuardedHttp,
    is_on_this_machine,
    parsed_url,
    redirected,
    within,
)
from services.messaging.providers.twilio.hosts import TwilioHosts

_RECORDING_ID: Final = re.compile(r"RE[0-9a-f]{32}", re.ASCII)
_CONNECT_SECONDS: Final = 3.0
_KEEPALIVE_SECONDS: Final = 60.0
_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.5)
"""Between looks for a file that isn't there yet, in seconds; 3 in all."""

_GONE: Final = frozenset({404, 410})
_MAY_CHANGE: Final = TEMPORARY | {401, 403}


class TwilioRecordings:
    """`Recordings` on Twilio. It is made inside the event loop, and closed.

    Args:
        base_url: Of Twilio's REST API. When it is on this machine, as the sandbox is, recordings
            may come from this machine, too.
        max_bytes: A larger file is not taken. A minute of a call has 960 kB as WAV.
        timeout_seconds: For one file in all, waiting for it and a redirect included.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: SecretStr,
        base_url: str,
        max_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._account_path = f"/2010-04-01/Accounts/{account_sid}"
        self._base_url = base_url
        self._hosts = TwilioHosts(base_url)
        self._elsewhere = GuardedHttp(local=is_on_this_machine(base_url))
        self._authorization = {
            "Authorization": aiohttp.encode_basic_auth(account_sid, auth_token.get_secret_value())
        }
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        # For Twilio's own hosts, whose certificates say that they are. (Or the sandbox.)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is counted must be what comes in.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "Switchboard"},
        )

    async def fetch(self, recording_id: str, url: str) -> bytes:
        """The WAV file; one that isn't there yet is waited for briefly."""
        try:
            address = self._address(recording_id, url)
            async with within(self._timeout_seconds):
                for pause in _PAUSES:
                    content = await self._get(address)
                    if content is not None:
                        return _checked(content)
                    await asyncio.sleep(pause)
                content = await self._get(address)
        except MediaUnobtainableError as error:
            raise RecordingRefusedError(str(error)) from None
        if content is None:
            raise RecordingMissingError("there is no such recording")
        return _checked(content)

    async def delete(self, recording_id: str) -> None:
        """Delete at the provider; one that is gone is a success."""
        if not _RECORDING_ID.fullmatch(recording_id):
            return
        address = f"{self._base_url}{self._recording_path(recording_id)}.json"
        try:
            async with self._session.delete(
                address, headers=self._authorization, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"the recording could not be deleted: {type(error).__name__}"
            ) from error
        if not 200 <= status < 300 and status not in _GONE:
            raise UnavailableError(f"the recording could not be deleted: HTTP {status}")

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def _recording_path(self, recording_id: str) -> str:
        return f"{self._account_path}/Recordings/{recording_id}"

    def _address(self, recording_id: str, url: str) -> URL:
        """Where the file is.

        Raises:
            MediaUnobtainableError: That is not the address of this recording of this account.
        """
        address = parsed_url(url)
        if not self._hosts.own(address):
            raise MediaUnobtainableError("its address is not one of Twilio's")
        path = self._recording_path(recording_id)
        as_it_should_be = (
            _RECORDING_ID.fullmatch(recording_id)
            and address.raw_path in (path, f"{path}.wav")
            and not address.raw_query_string
            and not address.raw_fragment
        )
        if not as_it_should_be:
            raise MediaUnobtainableError("its address is not that of this account's recording")
        return address.with_path(f"{path}.wav", encoded=True)

    async def _get(self, address: URL) -> bytes | None:
        """The file; None when it isn't there."""
        async with self._session.get(
            address, headers=self._authorization, allow_redirects=False
        ) as response:
            target = redirected(address, response)
            if target is None:
                return await self._content(response)
        # Without credentials, wherever it leads.
        async with self._elsewhere.ask("GET", target) as response:
            if redirected(target, response) is not None:
                raise MediaUnobtainableError("it is redirected more than once")
            return await self._content(response)

    async def _content(self, response: aiohttp.ClientResponse) -> bytes | None:
        if response.status in _GONE:
            return None
        return await read_file(response, max_bytes=self._max_bytes, may_change=_MAY_CHANGE)


def _checked(content: bytes) -> bytes:
    """The content when it says of itself that it is WAV.

    Raises:
        RecordingRefusedError: It doesn't.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise RecordingRefusedError("it is no WAV file")
    return content
