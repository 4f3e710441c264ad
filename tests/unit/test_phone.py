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
        "+9720501234567",
        "whatsapp:+9720501234567",
        "+97200501234567",
        "009720501234567",
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


@pytest.mark.parametrize(
    "number",
    [
        "+390612345678",  # A leading zero that belongs to the number.
        "+2250701234567",
        "+5215512345678",  # WhatsApp's form, which the library takes for too long.
        "+15005550006",
        "+99901234567",  # No country that it knows.
        "+2619916036",  # A number range that it doesn't know, and would mend.
        "+789123456789",
    ],
)
def test_a_number_in_e164_is_taken_as_it_is(number: str) -> None:
    """Contacts are stored under the number that WhatsApp gives; it finds them whatever it is."""
    for addresses in (ISRAEL, NOWHERE):
        assert addresses.identity(number, field="to") == Identity(IdentityKind.PHONE, number)


def test_examples_of_all_countries_are_taken_as_they_are() -> None:
    """With a zero before them, where one is dialled within the country, they mean the same."""
    spelled_with_zero = 0
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        if example is None:
            continue
        e164 = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        assert NOWHERE.identity(e164, field="to").value == e164
        country = phonenumbers.PhoneMetadata.metadata_for_region(region)
        # In Colombia it isn't dialled before mobile numbers.
        if region != "CO" and country is not None and country.national_prefix == "0":
            code = f"+{example.country_code}"
            with_zero = f"{code}0{e164.removeprefix(code)}"
            assert NOWHERE.identity(with_zero, field="to").value == e164
            spelled_with_zero += 1
    assert spelled_with_zero > 80


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
