"""Twilio's list of messages, in the form of the webhooks that should have told of them.

The list has fewer fields than a webhook: no ProfileName, no WaId, no buttons and no location.
https://www.twilio.com/docs/messaging/api/message-resource
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import structlog
from twilio.base.exceptions import TwilioException  # type: ignore[import-untyped]  # No stubs.

from services.common.errors import UnavailableError
from services.common.journal.events import EventKind
from services.messaging.ports.recovering import ListedEvent
from services.messaging.providers.twilio.session import TwilioSession
from services.messaging.providers.twilio.transport import NotSentError, RefusedError
from services.messaging.providers.twilio.webhooks import PROVIDER, STATUSES

log = structlog.get_logger(__name__)

_PAGE_SIZE: Final = 200
_MAX_PAGES: Final = 500
_MAX_MEDIA: Final = 10


class TwilioHistory:
    """`EventHistory` on Twilio.

    Args:
        own_address: Whose messages are listed.
    """

    name = PROVIDER

    def __init__(self, session: TwilioSession, *, own_address: str) -> None:
        self._client = session.client
        self._base_url = session.base_url
        self._own_address = own_address

    async def received(self, since: datetime) -> AsyncIterator[Sequence[ListedEvent]]:
        """Inbound messages since a time, newest first, in pages."""
        async for page in self._pages(since, to=self._own_address):
            yield [
                _message(one)
                for one in page
                if one.direction == "inbound" and one.status == "received"
            ]

    async def reported(self, since: datetime) -> AsyncIterator[Sequence[ListedEvent]]:
        """Where outbound messages stand that were made since a time, newest first, in pages."""
        async for page in self._pages(since, from_=self._own_address):
            yield [_status(one) for one in page if one.direction != "inbound"]

    async def media(self, event: ListedEvent) -> Sequence[tuple[str, str]]:
        """The parameters that name a message's files."""
        with _translated_errors():
            files = await self._client.messages(event.provider_message_id).media.list_async(
                limit=_MAX_MEDIA
            )
        found: list[tuple[str, str]] = []
        for number, file in enumerate(files):
            url = self._base_url + str(file.uri).removesuffix(".json")
            found += [
                (f"MediaUrl{number}", url),
                (f"MediaContentType{number}", file.content_type or ""),
            ]
        return found

    async def _pages(self, since: datetime, **addresses: str) -> AsyncIterator[list[Any]]:
        earliest = since.replace(microsecond=0)  # Twilio's times have whole seconds.
        with _translated_errors():
            page = await self._client.messages.page_async(page_size=_PAGE_SIZE, **addresses)
        for _ in range(_MAX_PAGES):
            with _translated_errors():
                instances = list(page) if page is not None else []
                recent = [one for one in instances if _time(one.date_created) >= earliest]
            yield recent
            # Newest first: whatever follows a page that reaches back so far is older.
            if page is None or len(recent) < len(instances) or not instances:
                return
            with _translated_errors():
                page = await page.next_page_async()
        log.warning("Twilio lists more messages than can be compared", pages=_MAX_PAGES)


def _message(one: Any) -> ListedEvent:
    return ListedEvent(
        kind=EventKind.WHATSAPP_MESSAGE,
        key=f"message:{one.sid}",
        provider_message_id=one.sid,
        status=None,
        at=_time(one.date_created),
        parameters=(
            *_common(one),
            ("SmsMessageSid", one.sid),
            ("Body", one.body or ""),
            ("NumMedia", one.num_media or "0"),
            ("NumSegments", one.num_segments or "1"),
            ("SmsStatus", str(one.status)),
        ),
        has_media=str(one.num_media or "0") != "0",
    )


def _status(one: Any) -> ListedEvent:
    word = str(one.status)
    error = str(one.error_code) if one.error_code else ""
    words = (("ErrorCode", error), ("ErrorMessage", one.error_message or "")) if error else ()
    return ListedEvent(
        kind=EventKind.WHATSAPP_STATUS,
        key=f"status:{one.sid}:{word}:{error}" if error else f"status:{one.sid}:{word}",
        provider_message_id=one.sid,
        status=STATUSES.get(word),
        at=_time(one.date_updated or one.date_created),
        parameters=(*_common(one), ("MessageStatus", word), ("SmsStatus", word), *words),
    )


def _common(one: Any) -> tuple[tuple[str, str], ...]:
    return (
        ("MessageSid", one.sid),
        ("SmsSid", one.sid),
        ("AccountSid", one.account_sid or ""),
        ("From", one.from_ or ""),
        ("To", one.to or ""),
        ("ApiVersion", one.api_version or ""),
    )


def _time(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError("a listed message has no date")  # noqa: TRY004 - Twilio's, not a caller's.
    return value if value.tzinfo else value.replace(tzinfo=UTC)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (
        NotSentError,
        RefusedError,
        aiohttp.ClientError,
        TwilioException,
        TimeoutError,
        OSError,
        ValueError,
    ) as error:
        raise UnavailableError("Twilio did not list its messages") from error
