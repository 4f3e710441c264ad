"""Who may see more than whether Switchboard works."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from services.health.settings import Network


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
        return bool(request.client and self._is_open(request.client.host)) or self.shows_key(
            request
        )

    def shows_key(self, request: HTTPConnection) -> bool:
        """Whether the sender has a key, wherever they are."""
        shown = request.headers.get("x-api-key") or _password(
            request.headers.get("authorization", "")
        )
        matches = [hmac.compare_digest(shown.encode(), key) for key in self._keys]
        return any(matches)

    def _is_open(self, host: str) -> bool:
        try:
            address = ip_address(host)
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
