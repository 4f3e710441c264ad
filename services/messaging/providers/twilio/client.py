"""Sending through Twilio's REST API with the official SDK.

What an answer means for a message. Codes: https://www.twilio.com/docs/api/errors.

=========================================  =========  ==========================================
What happened                              Outcome    Why
=========================================  =========  ==========================================
201 with a sid                             ACCEPTED
no connection: DNS, refused, TLS, timeout  RETRY      not a byte of the request left
429, or a code in `_BUSY`                  RETRY      refused for now; after Retry-After if given
401, 403, or a code in `_CONFIGURATION`    RETRY      slowly: someone has to mend the credentials
any other 4xx in Twilio's words            REJECTED   asking again would get the same answer
anything else: no answer in time, 5xx,     UNKNOWN    Twilio may have the message
connection lost, an answer not Twilio's
=========================================  =========  ==========================================

Creating a message is not idempotent at Twilio, so no layer below retries it.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from twilio.base.exceptions import TwilioException  # type: ignore[import-untyped]  # No stubs.

from services.common.errors import UnavailableError
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, ProviderMessage, SendOutcome
from services.messaging.providers.twilio.session import TwilioSession
from services.messaging.providers.twilio.transport import NotSentError, RefusedError
from services.messaging.providers.twilio.webhooks import (
    MESSAGE_ID_PARAMETER,
    PROVIDER,
    STATUSES,
)

STATUS_CALLBACK_PATH: Final = "/webhook/whatsapp/status"

_BUSY: Final = frozenset(
    {
        20429,  # Too many requests
        21611,  # This sender's queue is full
        30001,  # Queue overflow
        63018,  # WhatsApp's rate limit
    }
)
_CONFIGURATION: Final = frozenset(
    {
        20003,  # Credentials are wrong
        20404,  # No such account
    }
)
_CONFIGURATION_PAUSE: Final = timedelta(seconds=60)

_SID: Final = re.compile(r"[A-Za-z0-9]{1,128}")
_PAGE_SIZE: Final = 100
_MAX_PAGES: Final = 20


class TwilioProvider:
    """`Provider` on Twilio.

    Args:
        public_host: Our origin as Twilio reaches it, for status callbacks.
        name: What rows call it.
    """

    absorbs_repeats = False

    def __init__(self, session: TwilioSession, *, public_host: str, name: str = PROVIDER) -> None:
        self.name = name
        self._client = session.client
        self._transport = session.transport
        self._callback_url = public_host.rstrip("/") + STATUS_CALLBACK_PATH

    async def send(self, message: ClaimedSend) -> SendOutcome:
        """Try once. Never raises for a failure of Twilio: that is an outcome."""
        # Comes back with every status: it finds the message also when this call never returns.
        query = urlencode({MESSAGE_ID_PARAMETER: message.message_id})
        try:
            created = await self._client.messages.create_async(
                to=message.contact_address,
                from_=message.own_address,
                status_callback=f"{self._callback_url}?{query}",
                **_content(message),
            )
        except NotSentError as error:
            return SendOutcome(
                OutcomeKind.RETRY, error_code="no_connection", error_message=str(error)
            )
        except RefusedError as error:
            return _refusal(error)
        except (aiohttp.ClientError, TwilioException, TimeoutError, OSError, ValueError) as error:
            return SendOutcome(
                OutcomeKind.UNKNOWN, error_code="no_answer", error_message=type(error).__name__
            )
        if not isinstance(created.sid, str) or not _SID.fullmatch(created.sid):
            return SendOutcome(
                OutcomeKind.UNKNOWN,
                error_code="no_answer",
                error_message="the answer names no message",
            )
        return SendOutcome(
            OutcomeKind.ACCEPTED,
            provider_message_id=created.sid,
            status=STATUSES.get(str(created.status)),
        )

    async def sent_messages(
        self, *, contact_address: str, own_address: str, since: datetime
    ) -> Sequence[ProviderMessage]:
        """Everything sent to one contact since a time, oldest first.

        Twilio's `DateSent` filter is not used: it knows days only, and a message that Twilio has
        accepted and not yet sent has no such date.

        Raises:
            UnavailableError: Twilio didn't answer, so nothing is known.
        """
        found: list[ProviderMessage] = []
        try:
            page: Any = await self._client.messages.page_async(
                to=contact_address, from_=own_address, page_size=_PAGE_SIZE
            )
            # `since` is by our clock, which may be ahead. Twilio's times have whole seconds.
            earliest = since - max(self._transport.clock_ahead, timedelta())
            earliest = earliest.replace(microsecond=0)
            for _ in range(_MAX_PAGES):
                instances = list(page) if page is not None else []
                listed = [_listed(instance) for instance in instances]
                found += [one for one in listed if one.created_at >= earliest]
                # Newest first: whatever follows a page that reaches back so far is older.
                if page is None or not listed or listed[-1].created_at < earliest:
                    return sorted(found, key=lambda one: one.created_at)
                page = await page.next_page_async()
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
        raise UnavailableError("Twilio lists more messages to one contact than can be looked at")


def _content(message: ClaimedSend) -> dict[str, Any]:
    """What is said, as Twilio's parameters. A template stands alone."""
    if message.template is not None:
        return {
            "content_sid": message.template.id,
            "content_variables": json.dumps(dict(message.template.variables), ensure_ascii=False),
        }
    content: dict[str, Any] = {"media_url": list(message.media_urls)} if message.media_urls else {}
    # A file may go without a caption.
    return content | ({"body": message.body} if message.body else {})


def _refusal(error: RefusedError) -> SendOutcome:
    """What a refusal means; see the table at the top."""
    kind, retry_after = OutcomeKind.UNKNOWN, error.retry_after
    if error.status >= 500:
        pass
    elif error.status == 429 or error.code in _BUSY:
        kind = OutcomeKind.RETRY
    elif error.status in (401, 403) or error.code in _CONFIGURATION:
        kind, retry_after = OutcomeKind.RETRY, _CONFIGURATION_PAUSE
    elif error.status >= 400 and error.code is not None:
        kind = OutcomeKind.REJECTED
    return SendOutcome(
        kind,
        error_code=str(error.code or f"http_{error.status}"),
        error_message=error.explanation,
        retry_after=retry_after,
    )


def _listed(instance: Any) -> ProviderMessage:
    if not isinstance(instance.date_created, datetime) or not instance.sid:
        raise ValueError("a listed message has no date or no sid")
    created_at = instance.date_created
    if created_at.tzinfo is None:
        created_at = created_at.replace(tzinfo=UTC)
    return ProviderMessage(
        provider_message_id=instance.sid,
        body=instance.body or "",
        created_at=created_at,
        status=STATUSES.get(str(instance.status)),
        error_code=str(instance.error_code) if instance.error_code else None,
        error_message=instance.error_message,
    )
