"""Who may see more than whether Switchboard works."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from services.health.settings import Network

# Whom a request was passed on for; a proxy that we don't trust may send it, too.
_PASSED_ON_FOR = ("x-forwarded-for", "forwarded", "x-real-ip")


class Access:
    """Lets in networks without a key, and keys from anywhere.

    Args:
        keys: Shown as `X-API-Key`, or by a browser as the password of HTTP's Basic scheme.
    """

    def __init__(self, networks: Sequence[Network], keys: Sequence[str]) -> None:
        self._networks = networks
        self._keys = [key.encode() for key in keys]

    @property
    def has_keys(self) -> bool:
        """Whether there is any key to ask for."""
        return bool(self._keys)

    def allows(self, request: HTTPConnection) -> bool:
        """Whether the sender may see everything."""
        return self._is_inside(request) or self.shows_key(request)

    def comes_by_unknown_proxy(self, request: HTTPConnection) -> bool:
        """Whether it was passed on for somebody, and it can't be said for whom.

        `scope["peer"]` is who holds the connection. The client is another when a trusted proxy
        named it.
        """
        return request.client == request.scope["peer"] and any(
            name in request.headers for name in _PASSED_ON_FOR
        )

    def shows_key(self, request: HTTPConnection) -> bool:
        """Whether the sender has a key, wherever they are."""
        # White space around a value isn't of it (RFC 9110, 5.5); the parser leaves what follows.
        shown = request.headers.get("x-api-key", "").strip(" \t") or _password(
            request.headers.get("authorization", "")
        )
        matches = [hmac.compare_digest(shown.encode(), key) for key in self._keys]
        return any(matches)

    def _is_inside(self, request: HTTPConnection) -> bool:
        if request.client is None or self.comes_by_unknown_proxy(request):
            return False
        try:
            address = ip_address(request.client.host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _password(authorization: str) -> str:
    """The password of Basic credentials, "" without. https://www.rfc-editor.org/rfc/rfc7617"""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return decoded.partition(":")[2]
