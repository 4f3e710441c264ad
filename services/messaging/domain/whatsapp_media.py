"""Which files WhatsApp takes.

Twilio, "Guidance on WhatsApp Media Messages" and "Accepted content types for media"; Meta, Cloud
API, "Supported media types". Where they differ, what either takes is taken: the provider decides.
"""

from typing import Final

_MIB: Final = 1024 * 1024

MAX_BYTES: Final = 16 * _MIB
"""WhatsApp allows no larger file through Twilio."""

_MAX_IMAGE_BYTES: Final = 5 * _MIB

_TYPES: Final = frozenset(
    {
        "image/jpeg",
        "image/jpg",
        "image/png",
        "image/webp",
        "audio/3gpp",
        "audio/aac",
        "audio/amr",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "video/3gpp",
        "video/mp4",
        "application/pdf",
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "text/plain",
        "text/vcard",
        "text/x-vcard",
    }
)


def max_bytes(content_type: str) -> int | None:
    """How large a file of a type may be; None when WhatsApp doesn't take the type at all."""
    if content_type not in _TYPES:
        return None
    return _MAX_IMAGE_BYTES if content_type.startswith("image/") else MAX_BYTES
