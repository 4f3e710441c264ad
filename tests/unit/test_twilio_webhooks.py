"""Twilio's webhooks in our words."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.message import Media, MessageStatus, Moment, TimeSource
from services.messaging.providers.twilio.webhooks import (
    STATUSES,
    inbound_message,
    status_report,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# As Twilio documents them, "track outbound message status".
DOCUMENTED = [
    *("accepted", "scheduled", "queued", "sending", "sent", "delivered", "undelivered", "failed"),
    *("read", "canceled", "receiving", "received", "partially_delivered"),
]
MESSAGE = {
    "MessageSid": "SM0123456789abcdef0123456789abcdef",
    "From": "whatsapp:+972501234567",
    "To": "whatsapp:+14155238886",
    "Body": "שלום",
    "WaId": "972501234567",
    "ProfileName": "Dana",
    "NumMedia": "2",
    "MediaUrl0": "https://api.twilio.com/media/0",
    "MediaContentType0": "image/jpeg",
    "MediaUrl1": "https://api.twilio.com/media/1",
    "MediaContentType1": "audio/ogg",
}


def webhook(
    parameters: dict[str, str] | Sequence[tuple[str, str]], **query: str
) -> WebhookReceived:
    """A journaled webhook."""
    pairs = parameters.items() if isinstance(parameters, dict) else parameters
    return WebhookReceived(
        provider="twilio",
        parameters=[Parameter(name=name, value=value) for name, value in pairs],
        query_parameters=[Parameter(name=name, value=value) for name, value in query.items()],
    )


def test_a_message_is_read_whole() -> None:
    """Sender, text, name, media and every parameter arrive."""
    message = inbound_message("message:SM", webhook(MESSAGE), NOW)
    assert message.provider_message_id == MESSAGE["MessageSid"]
    assert message.identities == (Identity(IdentityKind.PHONE, "+972501234567"),)
    assert (message.contact_address, message.own_address) == (MESSAGE["From"], MESSAGE["To"])
    assert (message.body, message.profile_name) == ("שלום", "Dana")
    assert message.media == (
        Media("https://api.twilio.com/media/0", "image/jpeg"),
        Media("https://api.twilio.com/media/1", "audio/ogg"),
    )
    assert message.payload == MESSAGE
    assert message.received_at == NOW


def test_a_sender_without_a_visible_number_is_known_by_user_id() -> None:
    """A business-scoped id is an identity, and so is each other one that Twilio names."""
    message = inbound_message(
        "k",
        webhook(
            {
                **MESSAGE,
                "From": "whatsapp:US.13491208655302741918",
                "WaId": "",
                "ExternalUserId": "US.13491208655302741918",
                "ParentExternalUserId": "US.ENT.11815799212886844830",
            }
        ),
        NOW,
    )
    assert message.identities == (
        Identity(IdentityKind.WHATSAPP_BSUID, "US.13491208655302741918"),
        Identity(IdentityKind.WHATSAPP_BSUID, "US.ENT.11815799212886844830"),
    )


def test_repeated_and_empty_parameters_are_kept() -> None:
    """The first value counts, and the payload has them all, in order."""
    pairs = [*MESSAGE.items(), ("Body", "second"), ("Odd", ""), ("Odd", "x")]
    message = inbound_message("k", webhook(pairs), NOW)
    assert message.body == "שלום"
    assert message.payload["Body"] == ["שלום", "second"]
    assert message.payload["Odd"] == ["", "x"]


def test_a_long_name_costs_no_message() -> None:
    """A profile name beyond any sense is cut; the message is read."""
    message = inbound_message("k", webhook({**MESSAGE, "ProfileName": "x" * 5000}), NOW)
    assert len(message.profile_name) == 255


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MessageSid": ""}, "MessageSid: is missing"),
        ({"MessageSid": "S" * 129}, "MessageSid: is longer than 128 characters"),
        ({"From": ""}, "From: is missing"),
        ({"From": "+0", "WaId": "x"}, "From: is neither a phone number nor a WhatsApp user id"),
        ({"To": ""}, "To: is missing"),
        ({"To": "1" * 256}, "To: is longer than 255 characters"),
    ],
)
def test_a_message_that_cannot_be_placed_is_refused(change: dict[str, str], said: str) -> None:
    """The refusal names the parameter and not what stood in it."""
    with pytest.raises(InvalidInputError) as refused:
        inbound_message("k", webhook({**MESSAGE, **change}), NOW)
    assert str(refused.value) == said


@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from([*MESSAGE, "ErrorCode", "MessageStatus", "ErrorMessage", "\0"]),
            st.text(alphabet=st.characters(exclude_categories=["Cs"])),
        ),
        max_size=20,
    )
)
def test_any_parameters_are_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    """No text breaks the reader, and nothing it lets through holds NUL."""
    for read in (inbound_message, status_report):
        try:
            result = read("k", webhook(pairs), NOW)
        except InvalidInputError:
            continue
        assert "\0" not in repr(result)
        assert "\\x00" not in repr(result)


def test_a_report_says_when_it_reached_us_and_whose_message_it_is_about() -> None:
    """Twilio tells no time; our own id comes back in the callback's query string."""
    report = status_report(
        "status:SM1:read",
        webhook({"MessageSid": "SM1", "MessageStatus": "read"}, message="our-id"),
        NOW,
    )
    assert report.status is MessageStatus.READ
    assert report.moment == Moment(NOW, TimeSource.RECEIVED)
    assert (report.provider_message_id, report.message_id) == ("SM1", "our-id")


def test_a_failure_carries_its_error() -> None:
    """Error code and text are kept, cut to what the table takes."""
    report = status_report(
        "k",
        webhook(
            {
                "MessageSid": "SM1",
                "MessageStatus": "undelivered",
                "ErrorCode": "63016",
                "ChannelStatusMessage": "outside the window" + "!" * 2000,
            }
        ),
        NOW,
    )
    assert (report.status, report.error_code) == (MessageStatus.UNDELIVERED, "63016")
    assert report.error_message is not None
    assert len(report.error_message) == 1000


@pytest.mark.parametrize("word", [*DOCUMENTED, "Delivered", "teleported"])
def test_every_word_has_a_meaning_or_none(word: str) -> None:
    """A documented word means its status; one for inbound messages or a new one has no effect."""
    report = status_report("k", webhook({"MessageSid": "SM1", "MessageStatus": word}), NOW)
    assert report.status is STATUSES.get(word.lower())
    known = {"receiving", "received", "partially_delivered", "teleported"}
    assert (report.status is None) == (word in known)


def test_a_report_without_a_status_is_refused() -> None:
    """It says nothing, and names what is missing."""
    with pytest.raises(InvalidInputError, match="MessageStatus: is missing"):
        status_report("k", webhook({"MessageSid": "SM1"}), NOW)
