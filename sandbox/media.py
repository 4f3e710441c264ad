"""Files for the messages that carry one: small, and the same each time."""

import struct
import zlib
from hashlib import sha256

from sandbox.state import Media


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
