"""The WhatsApp webhooks, and how a verified webhook becomes an event of the journal."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Protocol

from switchboard.events.v1 import events_pb2

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind, JournalEvent

Parameters = Sequence[tuple[str, str]]
Values = Mapping[str, str]
"""Parameters by name; of a repeated one the first counts."""

_PLAIN_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)
# Tags of `Parameter` and sizes below 128, which are one byte
# (https://protobuf.dev/programming-guides/encoding/).
_NAMES = [f"\n{chr(size)}" for size in range(128)]
_VALUES = [f"\x12{chr(size)}" for size in range(128)]
_SHORT = 128 - 4


class Responder(Protocol):
    """Answers a webhook for which somebody waits, after its event is stored."""

    async def respond(self, event: JournalEvent, began: float) -> bytes:
        """TwiML. It never fails: whoever waits can't be told of errors.

        Args:
            began: When the request began to arrive, by `time.monotonic`.
        """
        ...

    def without_event(self, event: JournalEvent) -> str:
        """Where TwiML is that can be given though `event` could not be stored; absolute."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookRoute:
    """One address that a provider posts to.

    Attributes:
        name: Label in metrics and logs.
        key: The event's natural key from the parameters of the body and of the query, the same
            each time the provider sends it. Raises `InvalidInputError` when they don't identify
            it.
        responder: None when nobody waits for more than a thank-you.
    """

    name: str
    path: str
    provider: str
    kind: EventKind
    key: Callable[[Values, Values], str]
    responder: Responder | None = None


def required(parameters: Values, *names: str) -> str:
    """The first of several parameters that has a value.

    Raises:
        InvalidInputError: None has; names the first.
    """
    for name in names:
        if value := parameters.get(name):
            return value
    raise InvalidInputError(names[0], "is missing from the webhook's parameters")


def _message_key(parameters: Values, query: Values) -> str:
    return "message:" + required(parameters, "MessageSid", "SmsMessageSid", "SmsSid")


def _status_key(parameters: Values, query: Values) -> str:
    sid = required(parameters, "MessageSid", "SmsMessageSid", "SmsSid")
    status = required(parameters, "MessageStatus", "SmsStatus")
    error = parameters.get("ErrorCode")
    return f"status:{sid}:{status}:{error}" if error else f"status:{sid}:{status}"


WHATSAPP_ROUTES = (
    WebhookRoute(
        name="whatsapp_incoming",
        path="/webhook/whatsapp/incoming",
        provider="twilio",
        kind=EventKind.WHATSAPP_MESSAGE,
        key=_message_key,
    ),
    WebhookRoute(
        name="whatsapp_status",
        path="/webhook/whatsapp/status",
        provider="twilio",
        kind=EventKind.WHATSAPP_STATUS,
        key=_status_key,
    ),
)


def to_event(
    route: WebhookRoute,
    form: Parameters,
    query: Parameters,
    *,
    received_at: datetime,
    traceparent: str,
    idempotency_token: bytes = b"",
) -> JournalEvent:
    """The event of a verified webhook.

    Bytes that aren't UTF-8 become U+FFFD and NUL is left out: neither protobuf nor PostgreSQL
    can hold them.

    Args:
        form: Parameters of the body, undecodable bytes as lone surrogates.
        query: Parameters of the address, likewise.
        traceparent: Of the request.
        idempotency_token: The header as it came; cut to a sensible length.

    Raises:
        InvalidInputError: The parameters don't identify the event; names the one missing.
    """
    form, is_ascii = _storable(form)
    query, _ = _storable(query) if query else (query, True)
    # Of a repeated parameter the first one counts, whichever way a later reader takes it.
    key = route.key(dict(reversed(form)), dict(reversed(query)) if query else {})
    if not _PLAIN_KEY.fullmatch(key):
        # No id of Twilio's looks like this; it still has to be one header of bounded length.
        prefix = key.partition(":")[0]
        key = f"{prefix}:sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    received = events_pb2.WebhookReceived(
        provider=route.provider,
        idempotency_token=_printable(idempotency_token[:200]) if idempotency_token else "",
    )
    # `Timestamp.FromDatetime` does the same at ten times the cost.
    received.received_at.seconds = math.floor(received_at.timestamp())
    received.received_at.nanos = received_at.microsecond * 1000
    for name, value in query:
        received.query_parameters.add(name=name, value=value)
    data = received.SerializeToString() + _serialized(form, is_ascii)
    return JournalEvent(route.kind, key, route.path, received_at, data, traceparent)


def _serialized(form: Parameters, is_ascii: bool) -> bytes:
    """The parameters of a `WebhookReceived`, which may follow its other fields.

    The library makes an object of each, which is a tenth of the time that a webhook takes.
    """
    names, values = _NAMES, _VALUES
    return "".join(
        [
            # `WebhookReceived.parameters` has the number that `Parameter.value` has.
            f"{values[size + value_size + 4]}{names[size]}{name}{values[value_size]}{value}"
            if (size := len(name)) + (value_size := len(value)) < _SHORT
            and (is_ascii or (name.isascii() and value.isascii()))
            else events_pb2.WebhookReceived(
                parameters=[events_pb2.Parameter(name=name, value=value)]
            )
            .SerializeToString()
            .decode("latin-1")
            for name, value in form
        ]
    ).encode("latin-1")


def _printable(header: bytes) -> str:
    text = header.decode("latin-1")
    if text.isprintable():
        return text
    return "".join(character for character in text if character.isprintable())


def _storable(parameters: Parameters) -> tuple[Parameters, bool]:
    """Parameters that protobuf and PostgreSQL can hold, and whether they are all ASCII."""
    text = "".join(chain.from_iterable(parameters))
    is_ascii = text.isascii()
    if "\0" not in text and (is_ascii or _is_unicode(text)):
        return parameters, is_ascii
    return [(_storable_text(name), _storable_text(value)) for name, value in parameters], False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable_text(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace").replace("\0", "")
