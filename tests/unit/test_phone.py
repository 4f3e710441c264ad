"""Numbers as people write them."""

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.phone import ContactAddresses

ISRAEL = ContactAddresses("IL")
NOWHERE = ContactAddresses(None)
PHONE = Identity(IdentityKind.PHONE, "+972501234567")


@pytest.mark.parametrize(
    "spelling",
    [
        "+972501234567",
        "whatsapp:+972501234567",
        "WhatsApp: +972 50-123-4567",
        "tel:+972-50-1234567",
        "+972 (0)50 123 4567",
        "00972501234567",
        "00 972 50 123 4567",
        "\u200e\u202a+972 50\u2011123\u20114567\u202c",
        "  +972.50.123.4567\n",
        "\uff0b\uff19\uff17\uff12\uff15\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17",
    ],
)
def test_international_spellings_need_no_region(spelling: str) -> None:
    """A number with its country's code means the same wherever the business is."""
    assert NOWHERE.identity(spelling, field="to") == PHONE
    assert ISRAEL.identity(spelling, field="to") == PHONE


@pytest.mark.parametrize("spelling", ["0501234567", "050-123-4567", "(050) 123 4567"])
def test_national_spellings_need_a_region(spelling: str) -> None:
    """A number without its country's code is read in the default region, or refused."""
    assert ISRAEL.identity(spelling, field="to") == PHONE
    with pytest.raises(InvalidInputError, match="DEFAULT_REGION"):
        NOWHERE.identity(spelling, field="to")


@pytest.mark.parametrize("address", ["whatsapp:US.13491208655302", "US.ENT.abc123"])
def test_user_ids_are_taken_as_they_are(address: str) -> None:
    """A business-scoped user id is no number, and is left alone."""
    expected = Identity(IdentityKind.WHATSAPP_BSUID, address.removeprefix("whatsapp:"))
    assert ISRAEL.identity(address, field="to") == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "12",
        "050-123-4567-8901",
        "+999 12 345 6789",
        "00",
        "+",
        "1-800-FLOWERS",
        "050-123-4567 ext. 5",
        "+972501234567;+972501234568",
        "+972501234567'; DROP TABLE messages; --",
        "+97250\x00123",
        "9" * 1_000_000,
    ],
)
def test_what_is_no_number_is_refused(address: str) -> None:
    """What can't be read is refused with the field's name, never guessed."""
    with pytest.raises(InvalidInputError) as raised:
        ISRAEL.identity(address, field="contact_address")
    assert raised.value.field == "contact_address"


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text is an internal error, and whatever is read is a number in E.164 or a user id."""
    try:
        identity = ISRAEL.identity(text, field="to")
    except InvalidInputError:
        return
    if identity.kind is IdentityKind.PHONE:
        assert phonenumbers.is_possible_number(phonenumbers.parse(identity.value))
        assert ISRAEL.identity(identity.value, field="to") == identity
