"""Fetching the files that contacts send, from Twilio and from nowhere else.

A file's address comes with a webhook. Twilio answers it with a redirect to a short-lived address
at a host of its own choosing (https://www.twilio.com/docs/messaging/api/media-resource). The
account's credentials go to Twilio's own hosts only, never along with a redirect. Neither may lead
into our own network: every address of a host is checked, and the connection is made to one that
was checked, whatever DNS says a moment later.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.ports.media import File, MediaUnobtainableError

MAX_BYTES: Final = 16 * 1024 * 1024
"""WhatsApp allows no larger file. (Twilio, "Sending media with WhatsApp".)"""

_TIMEOUT_SECONDS: Final = 30.0
_CHUNK_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# 401 and 403: someone has to mend the credentials. 404: the file may not be there yet.
_MAY_CHANGE: Final = frozenset({401, 403, 404, 408, 425, 429})
_PRINTABLE: Final = re.compile(r"[!-~]{1,4096}")
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "Switchboard"}

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


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
        base = URL(base_url)
        self._origin = (base.scheme, base.host, base.port)
        self._local = _is_this_machine(base.host or "")
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def fetch(self, url: str) -> File:
        """The file at an address that Twilio gave.

        Raises:
            MediaUnobtainableError: It is no address of Twilio's, leads to a forbidden one, is too
                large, or is gone.
            UnavailableError: Twilio didn't answer, or not yet with the file.
        """
        address = _url(url)
        if not self._is_twilio(address):
            raise MediaUnobtainableError("its address is not one of Twilio's")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                found = await self._get(address, {"Authorization": self._authorization})
                if isinstance(found, URL):
                    # Without credentials, wherever it leads.
                    found = await self._get(found, {})
                if isinstance(found, URL):
                    raise MediaUnobtainableError("it is redirected more than once")
                return found
        except aiohttp.InvalidURL as error:
            raise MediaUnobtainableError("its address is malformed") from error
        except TimeoutError as error:
            raise UnavailableError("it did not arrive in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(f"it could not be fetched: {type(error).__name__}") from error

    def _is_twilio(self, url: URL) -> bool:
        if url.user is not None or url.password is not None:
            return False
        host = (url.host or "").lower()
        if (url.scheme, host, url.port) == self._origin:
            return True
        return url.scheme == "https" and url.port == 443 and host.endswith(".twilio.com")

    async def _get(self, url: URL, headers: Mapping[str, str]) -> File | URL:
        """The file, or where we are sent for it."""
        resolver = _Pinned(await self._checked_addresses(url))
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=resolver, use_dns_cache=False, force_close=True
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                # What is counted must be what comes in.
                auto_decompress=False,
                headers=_HEADERS,
            ) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status in _REDIRECTS:
                return url.join(_url(response.headers.get("Location", "")))
            if response.status in _MAY_CHANGE or response.status >= 500:
                raise UnavailableError(f"the answer was HTTP {response.status}")
            if response.status != 200:
                raise MediaUnobtainableError(f"the answer was HTTP {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise MediaUnobtainableError("it comes compressed")
            return File(await self._content(response), response.content_type)

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        too_large = MediaUnobtainableError(f"it is larger than {self._max_bytes} bytes")
        if (response.content_length or 0) > self._max_bytes:
            raise too_large
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            if len(content) > self._max_bytes:
                raise too_large
        return bytes(content)

    async def _checked_addresses(self, url: URL) -> Sequence[ResolveResult]:
        """Where the host is, all of it checked.

        Raises:
            MediaUnobtainableError: A connection there is forbidden.
            OSError: The host is unknown.
        """
        if url.scheme not in ("http", "https") or not url.host or url.port is None:
            raise MediaUnobtainableError("its address is neither https nor complete")
        if url.user is not None or url.password is not None:
            raise MediaUnobtainableError("its address holds credentials")
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, url.port, type=socket.SOCK_STREAM
        )
        addresses = [ipaddress.ip_address(str(sockaddr[0])) for *_, sockaddr in found]
        local = self._local and all(address.is_loopback for address in addresses)
        if not addresses or not (local or all(map(is_public, addresses))):
            raise MediaUnobtainableError("its address leads into a private network")
        if url.scheme != "https" and not local:
            raise MediaUnobtainableError("its address is not https")
        return [
            ResolveResult(
                hostname=url.host,
                host=str(sockaddr[0]),
                port=url.port,
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for family, _, protocol, _, sockaddr in found
        ]


class _Pinned(AbstractResolver):
    """Answers with addresses that are known already."""

    def __init__(self, addresses: Sequence[ResolveResult]) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return self._addresses

    async def close(self) -> None:
        pass


def is_public(address: IPAddress) -> bool:
    """Whether an address is reached over the public internet, and nothing else.

    An IPv6 address that stands for an IPv4 one is judged by that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Nothing but ordinary addresses: no mapped or link-local ones, no tunnels.
        if address not in _GLOBAL_UNICAST or address.sixtofour or address.teredo:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(text: str) -> URL:
    """An address, byte for byte: signed ones don't survive being escaped anew."""
    if not _PRINTABLE.fullmatch(text):
        raise MediaUnobtainableError("its address is malformed")
    try:
        return URL(text, encoded=True)
    except ValueError as error:
        raise MediaUnobtainableError("its address is malformed") from error
