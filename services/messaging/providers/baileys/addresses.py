"""Contacts and messages as WhatsApp Web names them."""

import hashlib
from typing import Final

from services.messaging.domain.contact import Identity, IdentityKind, whatsapp_identity

PROVIDER: Final = "baileys"

_PHONE: Final = "@s.whatsapp.net"


def reserved_id(message_id: str) -> str:
    """WhatsApp's id of a message of ours, known before it is first sent and the same for ever."""
    return "3EB0" + hashlib.sha256(message_id.encode()).hexdigest()[:18].upper()


def chat_of(address: str) -> str | None:
    """The chat with a contact; None when WhatsApp Web knows no such address.

    Args:
        address: Such as "whatsapp:+972501234567" or "whatsapp:123456789012345@lid".
    """
    identity = whatsapp_identity(address)
    if identity is None:
        return None
    if identity.kind is IdentityKind.PHONE:
        return identity.value.removeprefix("+") + _PHONE
    return identity.value if identity.kind is IdentityKind.WHATSAPP_LID else None


def identity_of(chat: str) -> Identity | None:
    """Who is meant by a chat; None when that is no address of a person."""
    return whatsapp_identity(f"+{chat.removesuffix(_PHONE)}" if chat.endswith(_PHONE) else chat)
