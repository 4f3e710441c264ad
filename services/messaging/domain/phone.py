"""The ways in which people spell a contact's address.

Addresses from providers don't come through here: they are taken exactly as they are.
"""

import re

import phonenumbers

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import Identity, IdentityKind, whatsapp_identity

_MAX_CHARACTERS = 160
# Copying a number from a chat brings marks of writing direction along.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_PREFIX = re.compile(r"\s*(?:whatsapp|tel):\s*", re.IGNORECASE)
# Nothing with letters: neither an extension nor 1-800-FLOWERS is a number on WhatsApp.
_NUMBER = re.compile(r"\+?[\d\s()./\-\u2010-\u2015\u2212\uff0b]+")
_IN_GENERAL = (
    "must be a number such as +972501234567 or whatsapp:+972501234567, or a WhatsApp user id "
    "such as whatsapp:US.13491208655302"
)


class ContactAddresses:
    """Reads a contact's address in any common spelling.

    Args:
        default_region: ISO 3166 country, such as "IL", whose numbers may be written without the
            country's code; None to refuse those.
    """

    def __init__(self, default_region: str | None) -> None:
        self._default_region = default_region

    def identity(self, address: str, *, field: str) -> Identity:
        """Whom an address means.

        Args:
            field: Name of the request's field, for the error.

        Raises:
            InvalidInputError: It can't be read, or has too few or too many digits.
        """
        if len(address) > _MAX_CHARACTERS:
            raise InvalidInputError(field, f"is longer than {_MAX_CHARACTERS} characters")
        bare = _PREFIX.sub("", _INVISIBLE.sub("", address), count=1).strip()
        exact = whatsapp_identity(bare)
        if exact is None:
            if not _NUMBER.fullmatch(bare):
                raise InvalidInputError(field, _IN_GENERAL)
            exact = self._phone(bare, field)
        return _without_trunk_zero(exact)

    def _phone(self, text: str, field: str) -> Identity:
        for candidate in (text, f"+{text[2:]}" if text.startswith("00") else ""):
            try:
                number = phonenumbers.parse(candidate, self._default_region)
            except phonenumbers.NumberParseException:
                continue
            # Not "valid": the library's tables lack number ranges that are in use.
            if phonenumbers.is_possible_number(number):
                e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
                if (identity := whatsapp_identity(e164)) is not None:
                    return identity
        international = text.startswith(("+", "00"))
        if international or self._default_region:
            where = "" if international else f" in {self._default_region}"
            raise InvalidInputError(
                field, f"is no valid phone number{where}; write it as +972501234567"
            )
        raise InvalidInputError(
            field,
            "has no country code: write it as +972501234567, or set DEFAULT_REGION",
        )


def _without_trunk_zero(identity: Identity) -> Identity:
    """+9720501234567 is +972501234567: the zero is dialled within the country only.

    Everything else that is in E.164 stays, also what the library would write otherwise: WhatsApp's
    own form of a number may be one that it doesn't know, or doesn't know any more. It does know
    where a leading zero belongs to the number, as in Italy.
    """
    phone = identity.value
    # A country's code has up to three digits. Reading every number would take longer.
    while identity.kind is IdentityKind.PHONE and "0" in phone[2:5]:
        try:
            number = phonenumbers.parse(phone)
        except phonenumbers.NumberParseException:
            break
        code = f"+{number.country_code}"
        e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        shorter = len(e164) < len(phone) and phone.startswith(f"{code}0")
        if not shorter or not phonenumbers.is_possible_number(number):
            break
        phone = e164
    found = whatsapp_identity(phone)
    return identity if found is None else found
