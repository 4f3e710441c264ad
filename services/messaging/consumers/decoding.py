"""Stream messages into what the use case takes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from google.protobuf.message import DecodeError
from switchboard.events.v1.events_pb2 import WebhookReceived

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind, JournalEvent, MalformedEventError
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import StatusReport


class Translator(Protocol):
    """A provider's webhooks in our words; a module with these functions will do."""

    def inbound_message(
        self, key: str, webhook: WebhookReceived, received_at: datetime
    ) -> InboundMessage:
        """Raises InvalidInputError when it can't be stored."""
        ...

    def status_report(
        self, key: str, webhook: WebhookReceived, received_at: datetime
    ) -> StatusReport:
        """Raises InvalidInputError when it can't be stored."""
        ...

    def same_person(self, webhook: WebhookReceived, received_at: datetime) -> SamePerson:
        """Raises InvalidInputError when it names nobody."""
        ...


class PoisonError(Exception):
    """An event that will never be understood; the text says why and holds no values."""


def decode(
    headers: Mapping[str, str] | None, data: bytes, translators: Mapping[str, Translator]
) -> InboundMessage | StatusReport | SamePerson:
    """Read a stream message.

    Args:
        translators: By the name of the provider.

    Raises:
        PoisonError: It is no event of ours, or lacks what nothing can be done without.
    """
    event, webhook, received_at = read_webhook(headers, data)
    translator = translators.get(webhook.provider)
    if translator is None:
        raise PoisonError("the provider is unknown")
    try:
        if event.kind is EventKind.WHATSAPP_MESSAGE:
            message = translator.inbound_message(event.key, webhook, received_at)
            return replace(message, traceparent=event.traceparent)
        if event.kind is EventKind.WHATSAPP_IDENTITY:
            return translator.same_person(webhook, received_at)
        if event.kind is EventKind.WHATSAPP_STATUS:
            return translator.status_report(event.key, webhook, received_at)
    except InvalidInputError as error:
        raise PoisonError(str(error)) from error
    raise PoisonError("ce-type is of no event of a message")


def read_webhook(
    headers: Mapping[str, str] | None, data: bytes
) -> tuple[JournalEvent, WebhookReceived, datetime]:
    """A stream message's event, the webhook in it, and when that reached us.

    Raises:
        PoisonError: It is no event of ours.
    """
    try:
        event = JournalEvent.parse(headers, data)
        webhook = WebhookReceived.FromString(event.data)
        return event, webhook, _received_at(webhook, event)
    except MalformedEventError as error:
        raise PoisonError(str(error)) from error
    except DecodeError as error:
        raise PoisonError("the data is not a WebhookReceived message") from error


def _received_at(webhook: WebhookReceived, event: JournalEvent) -> datetime:
    if not webhook.HasField("received_at"):
        return event.time
    try:
        return webhook.received_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedEventError("received_at is not a time") from error
