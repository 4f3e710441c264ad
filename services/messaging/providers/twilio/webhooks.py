"""What Twilio's webhooks say, in our words.

Parameters: https://www.twilio.com/docs/messaging/guides/webhook-request and
https://www.twilio.com/docs/messaging/guides/track-outbound-message-status.
"""

import itertools
from collections.abc import Iterator
from datetime import datetime

from switchboard.events.v1.events_pb2 import WebhookReceived

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import (
    Identity,
    InboundMessage,
    SamePerson,
    whatsapp_identity,
    whatsapp_username,
)
from services.messaging.domain.message import (
    Media,
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
)
from services.messaging.providers.twilio.parameters import Parameters, event_key

PROVIDER = "twilio"

STATUSES = {
    "accepted": MessageStatus.QUEUED,
    "scheduled": MessageStatus.QUEUED,
    "queued": MessageStatus.QUEUED,
    "sending": MessageStatus.SENDING,
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
    "canceled": MessageStatus.FAILED,
    "read": MessageStatus.READ,
}
"""Twilio's words for where an outbound message stands. A word that is missing has no effect."""

MESSAGE_ID_PARAMETER = "message"
"""Name in a status callback's query string under which we get our own message id back."""

_MAX_ID = 128
_MAX_ADDRESS = 255
_MAX_NAME = 255
_MAX_ORIGIN = 16
_MAX_ERROR_CODE = 32
_MAX_ERROR_MESSAGE = 1000


def inbound_message(key: str, webhook: WebhookReceived, received_at: datetime) -> InboundMessage:
    """Read a webhook for an incoming message.

    Args:
        key: The event's natural key.
        received_at: Aware.

    Raises:
        InvalidInputError: It can't be stored as a message; the text names the parameter, and
            never its value.
    """
    parameters = Parameters(webhook.parameters)
    address = parameters.required("From", at_most=_MAX_ADDRESS)
    identities = tuple(dict.fromkeys(_identities(address, parameters)))
    if not any(one.proves for one in identities):
        raise InvalidInputError("From", "is neither a phone number nor a WhatsApp user id")
    return InboundMessage(
        event_key=event_key(key),
        provider=PROVIDER,
        provider_message_id=_message_sid(parameters),
        identities=identities,
        contact_address=address,
        own_address=parameters.required("To", at_most=_MAX_ADDRESS),
        body=parameters.first("Body"),
        received_at=received_at,
        profile_name=parameters.first("ProfileName")[:_MAX_NAME],
        media=tuple(_media(parameters)),
        payload=parameters.payload(),
        origin=webhook.origin[:_MAX_ORIGIN],
    )


def status_report(key: str, webhook: WebhookReceived, received_at: datetime) -> StatusReport:
    """Read a status callback. Twilio tells no time: the report's is when it reached us.

    Args:
        key: The event's natural key.
        received_at: Aware.

    Raises:
        InvalidInputError: It can't be told which message it is about, or what it says.
    """
    parameters = Parameters(webhook.parameters)
    word = parameters.first("MessageStatus", "SmsStatus")
    if not word:
        raise InvalidInputError("MessageStatus", "is missing")
    return StatusReport(
        event_key=event_key(key),
        provider=PROVIDER,
        provider_message_id=_message_sid(parameters),
        status=STATUSES.get(word.lower()),
        moment=Moment(received_at, TimeSource.RECEIVED),
        message_id=Parameters(webhook.query_parameters).first(MESSAGE_ID_PARAMETER) or None,
        error_code=parameters.first("ErrorCode")[:_MAX_ERROR_CODE] or None,
        error_message=parameters.first("ErrorMessage", "ChannelStatusMessage")[:_MAX_ERROR_MESSAGE]
        or None,
        payload=parameters.payload(),
        origin=webhook.origin[:_MAX_ORIGIN],
    )


def same_person(webhook: WebhookReceived, received_at: datetime) -> SamePerson:
    """Twilio has no webhook that joins two names.

    Raises:
        InvalidInputError: Always.
    """
    raise InvalidInputError("ce-type", "is none of Twilio's")


def _identities(address: str, parameters: Parameters) -> Iterator[Identity]:
    wa_id = parameters.first("WaId").removeprefix("+")
    for value in (
        address,
        wa_id and f"+{wa_id}",
        parameters.first("ExternalUserId"),
        parameters.first("ParentExternalUserId"),
    ):
        identity = whatsapp_identity(value) if value else None
        if identity is not None:
            yield identity
    user_name = whatsapp_username(parameters.first("ProfileUsername"))
    if user_name is not None:
        yield user_name


def _media(parameters: Parameters) -> Iterator[Media]:
    for number in itertools.count():
        url = parameters.first(f"MediaUrl{number}")
        if not url:
            return
        yield Media(url, parameters.first(f"MediaContentType{number}"))


def _message_sid(parameters: Parameters) -> str:
    return parameters.required("MessageSid", "SmsMessageSid", "SmsSid", at_most=_MAX_ID)
