"""Taking a message to be sent: checked, stored once, and sent in the background."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from services.common.errors import InvalidInputError
from services.common.tracing import current
from services.messaging.domain.contact import whatsapp_address
from services.messaging.domain.media_address import check_media_address
from services.messaging.domain.message import Author, Media, Message, Template
from services.messaging.domain.phone import ContactAddresses
from services.messaging.ports.media import MediaInspector
from services.messaging.ports.sending import NewMessage, OutboxStore
from services.messaging.usecases.background import drained
from services.messaging.usecases.outgoing_media import inspected

MAX_BODY_CHARACTERS: Final = 1600
"""Twilio refuses longer messages (error 21617)."""

_MAX_REQUEST_ID: Final = 255
_MAX_VARIABLES: Final = 100
_PRINTABLE_ASCII: Final = re.compile(r"[ -~]+")
_TEMPLATE_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_VARIABLE: Final = re.compile(r"[A-Za-z0-9_]{1,64}")


class SendMessage:
    """Stores messages for sending.

    Args:
        own_address: Our address, from which messages go out.
        own_addresses: All of ours, if there are more.
        provider: Name of the provider that sends from it.
        on_queued: Called when there is something new to send.
        files: Looks at a file before the message that carries it is taken.
        local_files: Files may be on this machine. For the sandbox.
        addresses: Reads the spellings of `to`.
    """

    def __init__(
        self,
        store: OutboxStore,
        *,
        own_address: str,
        own_addresses: Collection[str] = (),
        provider: str,
        on_queued: Callable[[], None],
        files: MediaInspector,
        local_files: bool = False,
        addresses: ContactAddresses | None = None,
    ) -> None:
        self._store = store
        self._own_address = own_address
        self._own_addresses = {own_address, *own_addresses}
        self._provider = provider
        self._on_queued = on_queued
        self._files = files
        self._local_files = local_files
        self._addresses = addresses or ContactAddresses(None)

    async def __call__(
        self,
        *,
        to: str,
        body: str = "",
        media_url: str | None = None,
        template: Template | None = None,
        reply_to_message_id: str | None = None,
        from_person: bool = False,
        request_id: str | None = None,
    ) -> Message:
        """Store a message and return it; sending follows.

        Exactly one of `body`, `media_url` and `template` says what is sent; `body` may stand
        beside `media_url` as its caption.

        Args:
            to: The contact, in any common spelling.
            media_url: Where the provider fetches a file.
            reply_to_message_id: Our id of the message of this conversation that it replies to.
                It is kept; Twilio can't show it to the contact.
            from_person: A person wrote it: the assistant leaves the conversation to people.
            request_id: Idempotency key. The same key with the same request gives the message
                stored first, for ever.

        Raises:
            InvalidInputError: A field is malformed.
            IdempotencyConflictError: The key was used for another request.
            PolicyRefusedError: A rule forbids the message; the error says which.
            MediaUnreadableError: The file's host doesn't answer now.
            UnavailableError: The database can't be reached.
        """
        recipient = self._addresses.identity(to, field="to")
        address = whatsapp_address(recipient)
        if address in self._own_addresses:
            raise InvalidInputError("to", "is our own number; write to a contact's")
        _check_content(body, media_url, template)
        if media_url is not None:
            check_media_address(media_url, "media_url", local=self._local_files)
        if template is not None:
            _check_template(template)
        if reply_to_message_id is not None:
            _check_text(reply_to_message_id, "reply_to_message_id", 255)
        if request_id is not None:
            _check_request_id(request_id)
        new = NewMessage(
            recipient=recipient,
            contact_address=address,
            own_address=self._own_address,
            provider=self._provider,
            author=Author.PERSON if from_person else Author.API,
            body=body,
            media=() if media_url is None else (Media(media_url, ""),),
            template=template,
            reply_to_message_id=reply_to_message_id,
            request_id=request_id,
            traceparent=current(),
            request_hash=None
            if request_id is None
            else _request_hash(
                address,
                body,
                {
                    "media_url": media_url,
                    "template": template and [template.id, dict(template.variables)],
                    "reply_to_message_id": reply_to_message_id,
                    "from_person": from_person,
                },
            ),
        )
        if media_url is not None:
            # What is known already is answered whatever has become of the file.
            known = await drained(self._store.stored_before(new))
            if known is not None:
                return known
            file = await inspected(self._files, media_url, "media_url")
            new = replace(new, media=(file,))
        # A caller that gives up meanwhile cancels this.
        return await drained(self._enqueue(new))

    async def _enqueue(self, new: NewMessage) -> Message:
        message, is_new = await self._store.enqueue(new)
        if is_new:
            self._on_queued()
        return message


def _check_content(body: str, media_url: str | None, template: Template | None) -> None:
    if template is not None:
        if body:
            raise InvalidInputError("body", "can't stand beside `template`, which has its own text")
        if media_url is not None:
            raise InvalidInputError("media_url", "can't stand beside `template`")
        return
    if media_url is None and not body.strip():
        raise InvalidInputError(
            "body", "is blank; send a text, or `media_url` or `template` instead"
        )
    if body and not body.strip():
        raise InvalidInputError("body", "is blank; leave it out or write a caption")
    _check_text(body, "body", MAX_BODY_CHARACTERS)


def _check_template(template: Template) -> None:
    if not _TEMPLATE_ID.fullmatch(template.id):
        raise InvalidInputError(
            "template.id", "must be the provider's id of the template, for Twilio a ContentSid"
        )
    if len(template.variables) > _MAX_VARIABLES:
        raise InvalidInputError("template.variables", f"has more than {_MAX_VARIABLES} entries")
    for name, value in template.variables.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidInputError(
                "template.variables", "has a name that isn't letters, digits and underscores"
            )
        _check_text(value, f"template.variables.{name}", MAX_BODY_CHARACTERS)


def _check_text(text: str, field: str, most: int) -> None:
    if len(text) > most:
        raise InvalidInputError(field, f"has {len(text)} characters; at most {most} can be sent")
    if "\0" in text:
        raise InvalidInputError(field, "contains a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            field, "contains half of a surrogate pair; send well-formed Unicode"
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


def _request_hash(address: str, body: str, others: Mapping[str, Any]) -> str:
    """A hash of the whole request. What isn't used leaves no trace.

    So a field that is added one day doesn't change the hashes of requests without it.
    """
    used = {name: value for name, value in others.items() if value}
    request = [address, body, used] if used else [address, body]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
