"""Telling MP3 from what a vendor may send instead."""

from typing import Final

from services.common.errors import UnavailableError

MAX_BYTES: Final = 8 * 1024 * 1024
"""A sentence has some hundred kilobytes at most; what is larger is none."""


def checked(content: bytes, vendor: str) -> bytes:
    """The content when it is MP3: played unchecked, another format is noise or nothing.

    Raises:
        UnavailableError: It isn't.
    """
    if not _is_mp3(content):
        raise UnavailableError(f"{vendor} answered with something that is not MP3")
    return content


def _is_mp3(content: bytes) -> bool:
    """Whether it begins with an ID3 tag or the header of an MPEG frame of layer III."""
    if content.startswith(b"ID3") and len(content) > 10:
        return True
    if len(content) < 4 or content[0] != 0xFF:
        return False
    # ISO/IEC 11172-3, 2.4.2.3: eleven bits of sync, two of version, two of layer (01: III); then
    # four of bit rate (1111: forbidden) and two of sampling rate (11: reserved).
    sync, version, layer = content[1] >> 5, content[1] >> 3 & 0b11, content[1] >> 1 & 0b11
    rate, sampling = content[2] >> 4, content[2] >> 2 & 0b11
    return sync == 0b111 and version != 0b01 and layer == 0b01 and rate < 15 and sampling < 3
