"""Page tokens: opaque to callers, and bound to the question they continue."""

import base64
import binascii
import hashlib
import hmac
import struct

from services.common.errors import InvalidInputError

_POSITION = struct.Struct(">Q")
_BINDING_BYTES = 8


def encode_page_token(position: int, *question: str) -> str:
    """A token for the page that starts before `position` of the answer to `question`."""
    packed = _POSITION.pack(position) + _binding(question)
    return base64.urlsafe_b64encode(packed).decode()


def decode_page_token(token: str, *question: str) -> int | None:
    """The position in a token; None when there is no token.

    Raises:
        InvalidInputError: It is not a token of ours, or belongs to another question.
    """
    if not token:
        return None
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("page_token", "is not a token of this service") from error
    if len(packed) != _POSITION.size + _BINDING_BYTES:
        raise InvalidInputError("page_token", "is not a token of this service")
    if not hmac.compare_digest(packed[_POSITION.size :], _binding(question)):
        raise InvalidInputError("page_token", "belongs to a request with other filters")
    position: int = _POSITION.unpack(packed[: _POSITION.size])[0]
    if position >= 2**63:
        raise InvalidInputError("page_token", "is not a token of this service")
    return position


def _binding(question: tuple[str, ...]) -> bytes:
    # No secret: a token only says where to go on, and the caller may see every page anyway.
    return hashlib.sha256("\0".join(question).encode()).digest()[:_BINDING_BYTES]
