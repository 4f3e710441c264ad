"""Files for the messages that carry one: small, and the same each time."""

import struct
import zlib
from hashlib import sha256
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sandbox.state import Media, SandboxState


class MediaHost:
    """Where Twilio's API sends whoever wants a file: another host, by name at least."""

    def __init__(self, state: SandboxState, base_url: str) -> None:
        self._state = state
        self._origin = f"http://localhost:{urlsplit(base_url).port}"

    def address(self, media: Media) -> str:
        """A file's address."""
        return f"{self._origin}/media/{media.sid}"

    def router(self) -> APIRouter:
        """The route below /media."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/media/{sid}", self.file, methods=["GET"])
        return router

    async def file(self, sid: str) -> Response:
        """A file; whoever knows its address may have it."""
        for message in self._state.messages.values():
            for media in message.media:
                if media.sid == sid:
                    return Response(content(media), media_type=media.content_type)
        raise HTTPException(404)


def content(media: Media) -> bytes:
    """A file's bytes: a PNG of one coloured pixel, or a line of text for any other type."""
    if media.content_type != "image/png":
        return f"Sandbox media {media.sid}\n".encode()
    colour = sha256(media.sid.encode()).digest()[:3]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(b"\x00" + colour)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
