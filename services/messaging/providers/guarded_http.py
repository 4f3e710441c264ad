"""Asking addresses that others chose, without being led into our own network.

Every address of a host is checked, and the connection is made to one that was checked, whatever
DNS says a moment later. A redirect is not followed: who follows it asks anew, checked anew.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.domain.public_address import is_public
from services.messaging.ports.media import MediaUnobtainableError

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PRINTABLE: Final = re.compile(r"[!-~]{1,4096}")
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "Switchboard"}


class GuardedHttp:
    """Requests that leave this network or aren't made.

    Args:
        local: This machine may be asked, too, even without https. For the sandbox.
    """

    def __init__(self, *, local: bool) -> None:
        self._local = local

    @contextlib.asynccontextmanager
    async def ask(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of the answer to one request, from where its body can be read.

        Raises:
            MediaUnobtainableError: A connection there is forbidden.
            aiohttp.ClientError, OSError, ValueError: There was no good answer.
        """
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
            session.request(method, url, headers=headers, allow_redirects=False) as response,
        ):
            yield response

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


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bounds the time for all that is asked inside, and turns what goes wrong into our errors.

    Raises:
        MediaUnobtainableError: Asking again would not help.
        UnavailableError: Asking again later may help.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except aiohttp.InvalidURL as error:
        raise MediaUnobtainableError("its address is malformed") from error
    except socket.gaierror as error:
        raise UnavailableError("its host can't be found") from error
    except TimeoutError as error:
        raise UnavailableError("it did not arrive in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UnavailableError(f"it could not be fetched: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its host's TLS certificate isn't valid"
        case aiohttp.ClientSSLError():
            return "its host doesn't speak TLS as it should"
        case aiohttp.ClientConnectorError():
            return "its host can't be reached"
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            return "its host broke off"
        case OSError():
            return "the network fails here"
    return "its host's answer is no proper HTTP"


def parsed_url(text: str) -> URL:
    """An address, byte for byte: signed ones don't survive being escaped anew.

    Raises:
        MediaUnobtainableError: It is none.
    """
    if not _PRINTABLE.fullmatch(text):
        raise MediaUnobtainableError("its address is malformed")
    try:
        return URL(text, encoded=True)
    except ValueError as error:
        raise MediaUnobtainableError("its address is malformed") from error


def redirected(url: URL, response: aiohttp.ClientResponse) -> URL | None:
    """Where an answer sends who asked `url`; None when it doesn't.

    Raises:
        MediaUnobtainableError: To no address.
    """
    if response.status not in _REDIRECTS:
        return None
    return url.join(parsed_url(response.headers.get("Location", "")))


def is_on_this_machine(url: str) -> bool:
    """Whether an address of ours, such as the sandbox's, names this very machine."""
    host = URL(url).host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
