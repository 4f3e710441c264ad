"""Addresses of files that the provider is asked to fetch and send on."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from services.common.errors import InvalidInputError
from services.messaging.domain.public_address import is_public

_MAX_CHARACTERS: Final = 2048
_PRINTABLE_ASCII: Final = re.compile(r"[!-~]+")
_HOST_NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}\.?")
_LOCAL_ENDINGS: Final = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "test")
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def check_media_address(url: str, field: str, *, local: bool = False) -> None:
    """Refuse what can't be the address of a file on the public internet.

    Only its text is looked at; where the host really is, and what it has there, is found out by
    asking it.

    Args:
        local: This machine is as good, also by http. For the sandbox.

    Raises:
        InvalidInputError: The provider couldn't fetch it.
    """
    if len(url) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"is longer than {_MAX_CHARACTERS} characters")
    if not _PRINTABLE_ASCII.fullmatch(url):
        raise InvalidInputError(field, "has spaces or non-ASCII characters; escape them with %")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInputError(field, "is no valid address") from None
    here = local and host in _THIS_MACHINE
    scheme = parts.scheme.lower()
    if scheme != "https" and not (here and scheme == "http"):
        raise InvalidInputError(field, "must begin with https://")
    if "@" in parts.netloc:
        raise InvalidInputError(field, "must carry no user name or password")
    if port == 0 or "\\" in url or not (here or _may_be_public(host)):
        raise InvalidInputError(
            field, "must name a host on the public internet, from where the provider fetches it"
        )


def _may_be_public(host: str) -> bool:
    try:
        return is_public(ipaddress.ip_address(host))
    except ValueError:
        name = host.rstrip(".")
        # Browsers and resolvers take 127.1, 0x7f000001 and 2130706433 for addresses.
        last = name.rpartition(".")[2]
        return (
            _HOST_NAME.fullmatch(host) is not None
            and not last.isdecimal()
            and not last.startswith("0x")
            and not any(name == end or name.endswith(f".{end}") for end in _LOCAL_ENDINGS)
        )
