"""Reading `multipart/form-data`, which Starlette can't without another package."""

import re
from dataclasses import dataclass

from starlette.requests import Request

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?')
_NAME = re.compile(r'\bname="([^"]*)"')
_FILENAME = re.compile(r'\bfilename="([^"]*)"')


class NotMultipartError(Exception):
    """The body isn't what the Content-Type says."""


@dataclass(frozen=True)
class Part:
    """A field of the form; `filename` is None where it is no file."""

    name: str
    filename: str | None
    content: bytes


async def multipart_form(request: Request) -> list[Part]:
    """The fields in their order.

    Raises:
        NotMultipartError: It is no such form.
    """
    content_type = request.headers.get("Content-Type", "")
    found = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/form-data") or not found:
        raise NotMultipartError("the Content-Type must be multipart/form-data with a boundary")
    delimiter = b"\r\n--" + found[1].encode()
    pieces = (b"\r\n" + await request.body()).split(delimiter)
    if pieces[0].strip() or not pieces[-1].startswith(b"--"):
        raise NotMultipartError("the form doesn't end with its boundary")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, separator, content = piece.partition(b"\r\n\r\n")
    headers = head.decode("utf-8", "replace")
    name = _NAME.search(headers)
    if not separator or not name:
        raise NotMultipartError("a part has no name")
    filename = _FILENAME.search(headers)
    return Part(name[1], filename[1] if filename else None, content)
