"""Taking a message to be sent: checked, stored once, and sent in the background."""

import hashlib
import json
import re
from collections.abc import Callable

from services.common.errors import InvalidInputError
from services.messaging.domain.contact import whatsapp_address, whatsapp_identity
from services.messaging.domain.message import Author, Message
from services.messaging.ports.sending import NewMessage, OutboxStore
from services.messaging.usecases.background import drained

MAX_BODY_CHARACTERS = 1600
"""Twilio refuses longer messages (error 21617)."""

_MAX_REQUEST_ID = 255
_PRINTABLE_ASCII = re.compile(r"[ -~]+")


class SendMessage:
    """Stores messages for sending.

    Args:
        own_address: Our address, from which messages go out.
        provider: Name of the provider that sends from it.
        on_queued: Called when there is something new to send.
    """

    def __init__(
        self,
        store: OutboxStore,
        *,
        own_address: str,
        provider: str,
        on_queued: Callable[[], None],
    ) -> None:
        self._store = store
        self._own_address = own_address
        self._provider = provider
        self._on_queued = on_queued

    async def __call__(self, *, to: str, body: str, request_id: str | None = None) -> Message:
        """Store a message and return it; sending follows.

        Args:
            to: `whatsapp:+15551234567`, `whatsapp:US.1349…` or the bare forms.
            request_id: Idempotency key. The same key with the same `to` and `body` gives the
                message stored first, for ever.

        Raises:
            InvalidInputError: A field is malformed.
            IdempotencyConflictError: The key was used for another `to` or `body`.
            PolicyRefusedError: The contact has opted out.
            UnavailableError: The database can't be reached.
        """
        recipient = whatsapp_identity(to)
        if recipient is None:
            raise InvalidInputError(
                "to",
                "must be a number in E.164 such as +15551234567 or whatsapp:+15551234567, or a "
                "WhatsApp user id such as whatsapp:US.13491208655302",
            )
        _check_body(body)
        if request_id is not None:
            _check_request_id(request_id)
        address = whatsapp_address(recipient)
        new = NewMessage(
            recipient=recipient,
            contact_address=address,
            own_address=self._own_address,
            provider=self._provider,
            author=Author.API,
            body=body,
            request_id=request_id,
            request_hash=None if request_id is None else _request_hash(address, body),
        )
        # A caller that gives up meanwhile cancels this.
        return await drained(self._enqueue(new))

    async def _enqueue(self, new: NewMessage) -> Message:
        message, is_new = await self._store.enqueue(new)
        if is_new:
            self._on_queued()
        return message


def _check_body(body: str) -> None:
    if not body.strip():
        raise InvalidInputError("body", "is blank; it is the text to send")
    if len(body) > MAX_BODY_CHARACTERS:
        raise InvalidInputError(
            "body", f"has {len(body)} characters; at most {MAX_BODY_CHARACTERS} can be sent"
        )
    if "\0" in body:
        raise InvalidInputError("body", "contains a NUL character; remove it")
    try:
        body.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            "body", "contains half of a surrogate pair; send well-formed Unicode"
        ) from None


def _check_request_id(request_id: str) -> None:
    if not request_id:
        raise InvalidInputError("request_id", "is empty; leave it out or send a unique value")
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidInputError(
            "request_id", f"has {len(request_id)} characters; at most {_MAX_REQUEST_ID} are kept"
        )
    if not _PRINTABLE_ASCII.fullmatch(request_id):
        raise InvalidInputError(
            "request_id", "may have printable ASCII characters only, such as a UUID"
        )


def _request_hash(address: str, body: str) -> str:
    return hashlib.sha256(json.dumps([address, body]).encode()).hexdigest()
