"""Sending through the Baileys bridge: a file for it, and its answer.

======================================  =========  ==============================================
What happened                           Outcome    Why
======================================  =========  ==============================================
answer `accepted`                       ACCEPTED   WhatsApp's server acknowledged it
answer `refused`                        REJECTED   asking again would get the same answer
answer `not_sent`                       RETRY      the bridge is certain
the bridge isn't there, or can't send   RETRY      no file was written
no answer, and the file could be        RETRY      the bridge has not begun it
withdrawn
no answer, and the bridge has the file  UNKNOWN    it may be sending it at this moment
answer `unknown`, or one that can't be  UNKNOWN
read
======================================  =========  ==============================================

A message has the same WhatsApp id at every attempt, so an unknown outcome is simply tried again: of
two messages with one id the bridge sends one, and failing that a phone shows one.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog

from services.common.errors import UnavailableError
from services.messaging.domain.message import MessageStatus
from services.messaging.ports.clock import Clock
from services.messaging.ports.media import MediaUnobtainableError
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, ProviderMessage, SendOutcome
from services.messaging.providers.baileys.addresses import PROVIDER, chat_of, reserved_id
from services.messaging.providers.baileys.disk import QueueUnusableError
from services.messaging.providers.baileys.documents import (
    DONE,
    Answer,
    AnswerOutcome,
    QueueFile,
    Quoted,
    Send,
    SendMedia,
    SendText,
    document_bytes,
    parse_document,
)
from services.messaging.providers.baileys.files import OutgoingFiles
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.baileys.session import BridgeSession

log = structlog.get_logger(__name__)

LAST_SECONDS: Final = 5.0
"""So long an answer is waited for when the bridge has taken a send at the last moment."""

_FIRST_LOOK_SECONDS: Final = 0.02
_LAST_LOOK_SECONDS: Final = 0.25
_MAX_QUOTED: Final = 4096

_KINDS: Final = {
    AnswerOutcome.ACCEPTED: OutcomeKind.ACCEPTED,
    AnswerOutcome.REFUSED: OutcomeKind.REJECTED,
    AnswerOutcome.NOT_SENT: OutcomeKind.RETRY,
    AnswerOutcome.UNKNOWN: OutcomeKind.UNKNOWN,
}


class BaileysProvider:
    """`Provider` on the file queue.

    Args:
        account: The number that messages go out from, in E.164.
        patience: How long the bridge may take until it has sent a message.
    """

    name = PROVIDER
    absorbs_repeats = True

    def __init__(
        self,
        folder: QueueFolder,
        session: BridgeSession,
        files: OutgoingFiles,
        *,
        account: str,
        clock: Clock,
        patience: timedelta,
    ) -> None:
        self._folder = folder
        self._session = session
        self._files = files
        self._account = account
        self._clock = clock
        self._patience = patience

    async def send(self, message: ClaimedSend) -> SendOutcome:
        """Try once. Never raises for a failure of the bridge: that is an outcome."""
        chat = chat_of(message.contact_address)
        if chat is None:
            return _rejected("no_address", "WhatsApp Web reaches phone numbers and LIDs only")
        if message.template is not None:
            return _rejected("unsupported", "WhatsApp Web has no templates")
        if obstacle := self._session.obstacle():
            return _retry(obstacle.code, obstacle.words)
        try:
            content = await self._content(message)
            send = self._document(message, chat, content)
            unique = f"{send.id}-{send.attempt}"
            name = await asyncio.to_thread(self._folder.put_send, document_bytes(send), unique)
        except QueueUnusableError as error:
            return _retry(error.code, str(error))
        except MediaUnobtainableError as error:
            return _rejected("bad_media", f"the file can't be had: {error}")
        except UnavailableError as error:
            return _retry("media_unavailable", f"the file can't be had now: {error}")
        return await self._outcome(name, send)

    async def sent_messages(
        self, *, contact_address: str, own_address: str, since: datetime
    ) -> Sequence[ProviderMessage]:
        """WhatsApp Web has no list of what was sent.

        Raises:
            UnavailableError: Always.
        """
        raise UnavailableError("WhatsApp Web lists no messages")

    async def _content(self, message: ClaimedSend) -> SendText | SendMedia:
        if not message.media_urls:
            return SendText(type="text", text=message.body)
        file, content = await self._files.fetch(message.media_urls[0])
        await asyncio.to_thread(self._folder.put_media, content, file.sha256)
        return SendMedia(
            type="media",
            media=_media_kind(file),
            file=file,
            caption=message.body,
            filename=self._files.name_of(message.media_urls[0]),
        )

    def _document(self, message: ClaimedSend, chat: str, content: SendText | SendMedia) -> Send:
        now = self._clock()
        replied_to = message.replied_to
        quoted = None
        if replied_to is not None and replied_to.provider == self.name:
            quoted = Quoted(
                id=replied_to.provider_message_id,
                from_me=replied_to.from_us,
                text=replied_to.body[:_MAX_QUOTED],
            )
        return Send.model_construct(
            id=reserved_id(message.message_id),
            ref=message.message_id,
            attempt=message.attempt,
            account=self._account,
            to=chat,
            created_at=now,
            expires_at=now + self._patience,
            content=content,
            reply_to=quoted,
        )

    async def _outcome(self, name: str, send: Send) -> SendOutcome:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._patience.total_seconds()
        pause = _FIRST_LOOK_SECONDS
        withdrawn_in_vain = False
        while True:
            try:
                content = await asyncio.to_thread(self._folder.take_answer, name)
            except BadDocumentError as error:
                return _unknown("bad_answer", str(error))
            except QueueUnusableError as error:
                return _unknown(error.code, str(error))
            if content is not None:
                return _answered(content, send)
            obstacle = self._session.obstacle()
            if not withdrawn_in_vain and (obstacle or loop.time() >= ends):
                if await self._withdraw(name):
                    if obstacle:
                        return _retry(obstacle.code, obstacle.words)
                    return _retry("bridge_busy", "the bridge had no time for it")
                withdrawn_in_vain = True
                ends = max(ends, loop.time() + LAST_SECONDS)
            elif loop.time() >= ends:
                return _unknown("no_answer", "the bridge has taken it and says nothing")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK_SECONDS)

    async def _withdraw(self, name: str) -> bool:
        try:
            return await asyncio.to_thread(self._folder.withdraw_send, name)
        except QueueUnusableError:
            return False


def _answered(content: bytes, send: Send) -> SendOutcome:
    try:
        answer = parse_document(content, DONE)
    except BadDocumentError as error:
        return _unknown("bad_answer", str(error))
    if answer.id is not None and answer.id != send.id:
        return _unknown("bad_answer", "it is about another message")
    return _from(answer, send)


def _from(answer: Answer, send: Send) -> SendOutcome:
    pause = answer.retry_after_seconds
    accepted = answer.outcome is AnswerOutcome.ACCEPTED
    return SendOutcome(
        _KINDS[answer.outcome],
        provider_message_id=send.id if accepted else None,
        status=MessageStatus.SENT if accepted else None,
        error_code=None if accepted else answer.code,
        error_message=None if accepted else answer.message,
        retry_after=None if pause is None else timedelta(seconds=pause),
    )


def _media_kind(file: QueueFile) -> Literal["image", "video", "audio", "document"]:
    match file.mimetype.partition("/")[0]:
        case "image" | "video" | "audio" as family:
            return family
    return "document"


def _rejected(code: str, words: str) -> SendOutcome:
    return SendOutcome(OutcomeKind.REJECTED, error_code=code, error_message=words)


def _retry(code: str, words: str) -> SendOutcome:
    return SendOutcome(OutcomeKind.RETRY, error_code=code, error_message=words)


def _unknown(code: str, words: str) -> SendOutcome:
    return SendOutcome(OutcomeKind.UNKNOWN, error_code=code, error_message=words)
