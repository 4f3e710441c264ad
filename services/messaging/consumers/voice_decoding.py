"""Stream messages about calls into what the use case takes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from switchboard.events.v1.events_pb2 import WebhookReceived

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind
from services.messaging.consumers.decoding import PoisonError, read_webhook
from services.messaging.usecases.calls.take_in import VoiceEvent

_VOICE = (
    EventKind.VOICE_CALL,
    EventKind.VOICE_STATUS,
    EventKind.VOICE_RECORDING,
    EventKind.VOICE_CONTINUATION,
)


class VoiceTranslator(Protocol):
    """A provider's webhooks about calls in our words; a module with this function will do."""

    def voice_event(
        self, key: str, kind: EventKind, webhook: WebhookReceived, received_at: datetime
    ) -> VoiceEvent:
        """Raises InvalidInputError when it can't be told what it is about."""
        ...


def decode_voice(
    headers: Mapping[str, str] | None, data: bytes, translators: Mapping[str, VoiceTranslator]
) -> VoiceEvent:
    """Read a stream message.

    Args:
        translators: By the name of the provider.

    Raises:
        PoisonError: It is no event of a call, or lacks what nothing can be done without.
    """
    event, webhook, received_at = read_webhook(headers, data)
    if event.kind not in _VOICE:
        raise PoisonError("ce-type is of no event of a call")
    translator = translators.get(webhook.provider)
    if translator is None:
        raise PoisonError("the provider is unknown")
    try:
        content = translator.voice_event(event.key, event.kind, webhook, received_at)
    except InvalidInputError as error:
        raise PoisonError(str(error)) from error
    return replace(content, traceparent=event.traceparent)
