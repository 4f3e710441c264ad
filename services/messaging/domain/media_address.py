"""Addresses of files that the provider is asked to fetch and send on."""

import ipaddress
import mimetypes
import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from services.common.errors import InvalidInputError

_MAX_CHARACTERS: Final = 2048
_PRINTABLE_ASCII: Final = re.compile(r"[!-~]+")
_HOST_NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}\.?")
_LOCAL_ENDINGS: Final = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "test")

# What WhatsApp takes: Twilio, "Accepted Content Types for Media" in WhatsApp's messages, and
# Meta, Cloud API, "Supported media types".
_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".amr": "audio/amr",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".3gp": "video/3gpp",
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".vcf": "text/vcard",
    ".doc": "application/msword",
    ".xls": "application/vnd.ms-excel",
    ".ppt": "application/vnd.ms-powerpoint",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}


def checked_media(url: str, field: str) -> str:
    """The type of a file as far as its address tells; "" when it doesn't.

    Only the address is looked at: whether the file is there, and at most 16 MB, the provider finds
    out. A request of our own would let callers reach into our network.

    Raises:
        InvalidInputError: The provider couldn't fetch it, or WhatsApp doesn't take its type.
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
    if parts.scheme.lower() != "https":
        raise InvalidInputError(field, "must begin with https://")
    if "@" in parts.netloc:
        raise InvalidInputError(field, "must carry no user name or password")
    if port == 0 or "\\" in url or not _is_public(host):
        raise InvalidInputError(
            field, "must name a host on the public internet, from where the provider fetches it"
        )
    return _type(unquote(parts.path), field)


def _is_public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
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
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


def _type(path: str, field: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    supported = _TYPES.get(ending)
    if supported is not None:
        return supported
    # The built-in table alone: what this machine is configured with must not matter.
    known, _ = mimetypes.MimeTypes().guess_type(f"file{ending}")
    if known is not None:
        raise InvalidInputError(
            field, f"is a {known} file by its name, which WhatsApp doesn't take"
        )
    return ""
