"""Positions as opaque tokens, bound to the question they continue.

They hold no secret: a token only says where to go on, and the caller may see everything anyway.
The binding keeps one list's position from being taken for another's.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from datetime import UTC, datetime, timedelta

from services.common.errors import InvalidInputError

_PAIR = struct.Struct(">qq")
_BINDING_BYTES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = ("changes",)


def encode_page_token(position: tuple[datetime, int], *question: str) -> str:
    """A token for the page that starts after `position` of the answer to `question`."""
    time, row_id = position
    return _encode(((time - _EPOCH) // _MICROSECOND, row_id), question)


def decode_page_token(token: str, *question: str) -> tuple[datetime, int] | None:
    """The position in a token; None when there is no token.

    Raises:
        InvalidInputError: It is not a token of ours, or belongs to another question.
    """
    if not token:
        return None
    microseconds, row_id = _decode(token, question, field="page_token")
    try:
        return _EPOCH + microseconds * _MICROSECOND, row_id
    except OverflowError:
        raise InvalidInputError("page_token", "is not a token of this service") from None


def encode_cursor(position: tuple[int, int]) -> str:
    """A position among all events."""
    return _encode(position, _CURSOR)


def decode_cursor(cursor: str) -> tuple[int, int] | None:
    """The position in a cursor; None when there is no cursor.

    Raises:
        InvalidInputError: It is not a cursor of ours.
    """
    return _decode(cursor, _CURSOR, field="cursor") if cursor else None


def _encode(pair: tuple[int, int], question: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode(_PAIR.pack(*pair) + _binding(question)).decode()


def _decode(token: str, question: tuple[str, ...], *, field: str) -> tuple[int, int]:
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(field, "is not a token of this service") from error
    if len(packed) != _PAIR.size + _BINDING_BYTES:
        raise InvalidInputError(field, "is not a token of this service")
    if not hmac.compare_digest(packed[_PAIR.size :], _binding(question)):
        raise InvalidInputError(field, "belongs to another question: ask from the beginning")
    first, second = _PAIR.unpack(packed[: _PAIR.size])
    return first, second


def _binding(question: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\0".join(question).encode()).digest()[:_BINDING_BYTES]
