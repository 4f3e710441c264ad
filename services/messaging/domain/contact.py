"""Who a message is from: a contact has identities, and an address is where to reach one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.messaging.domain.message import Media

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
# Twilio, "WhatsApp business-scoped user ids": a country, optionally ENT for a parent account.
_BSUID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_USERNAME = re.compile(r"[a-z0-9._]{1,64}")
_LID = re.compile(r"[0-9]{5,20}@lid", re.ASCII)


class IdentityKind(StrEnum):
    """What sort of name an identity is."""

    PHONE = "phone"
    WHATSAPP_BSUID = "whatsapp_bsuid"
    WHATSAPP_LID = "whatsapp_lid"
    WHATSAPP_USERNAME = "whatsapp_username"


@dataclass(frozen=True, slots=True)
class Identity:
    """One name by which a contact is known; it belongs to one contact only."""

    kind: IdentityKind
    value: str

    @property
    def proves(self) -> bool:
        """Whether two contacts that bear it are one person.

        A user name is given up and taken by somebody else: it belongs to whoever bore it last,
        and joins nobody.
        """
        return self.kind is not IdentityKind.WHATSAPP_USERNAME


def whatsapp_identity(address: str) -> Identity | None:
    """The identity in `whatsapp:+15551234567`, `whatsapp:US.1349…`, `whatsapp:1234@lid` or bare.

    Returns None when it is neither a phone in E.164, nor a business-scoped user id, nor a LID,
    behind which WhatsApp hides a phone.
    """
    bare = address.removeprefix("whatsapp:")
    if _PHONE.fullmatch(bare):
        return Identity(IdentityKind.PHONE, bare)
    if _BSUID.fullmatch(bare):
        return Identity(IdentityKind.WHATSAPP_BSUID, bare)
    if _LID.fullmatch(bare):
        return Identity(IdentityKind.WHATSAPP_LID, bare)
    return None


def whatsapp_username(name: str) -> Identity | None:
    """The identity in a user name, with or without "@"; None when it can't be one."""
    plain = name.strip().removeprefix("@").lower()
    if not _USERNAME.fullmatch(plain):
        return None
    return Identity(IdentityKind.WHATSAPP_USERNAME, plain)


def whatsapp_address(identity: Identity) -> str:
    """The address at which WhatsApp reaches an identity."""
    return f"whatsapp:{identity.value}"


@dataclass(frozen=True, slots=True)
class SamePerson:
    """Names that a provider says are one person's, all of them proof."""

    identities: tuple[Identity, ...]
    known_at: datetime


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """What a contact wrote, as a provider reported it.

    Attributes:
        event_key: The event's natural key; the same message always has the same.
        identities: Every identity the provider named for the sender, the address's own first.
        received_at: When it reached us, or, when its webhook was lost, when it reached the
            provider; aware, UTC.
        payload: The provider's parameters as they came.
        origin: "" when a webhook brought it, "reconciler" when the provider's list did.
        from_us: The owner wrote it to the contact, on a device that isn't ours.
        reply_to: The provider's id of the message that it replies to.
        traceparent: The request that brought it.
    """

    event_key: str
    provider: str
    provider_message_id: str
    identities: tuple[Identity, ...]
    contact_address: str
    own_address: str
    body: str
    received_at: datetime
    profile_name: str = ""
    media: tuple[Media, ...] = ()
    payload: Mapping[str, object] = field(default_factory=dict)
    origin: str = ""
    from_us: bool = False
    reply_to: str | None = None
    traceparent: str = ""
