"""Fetching from a pull consumer, faster than by the client's own `fetch`.

That starts two tasks for each message, which takes longer than decoding it. The requests and their
answers: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-13.md
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header, StatusCode
from nats.js.errors import APIError

from services.messaging.consumers.delivery import Delivery

_NO_MORE: Final = (StatusCode.NO_MESSAGES, StatusCode.REQUEST_TIMEOUT)
_GRACE_SECONDS: Final = 0.5


class Pull:
    """Asks a consumer for messages, by one request at a time.

    Args:
        consumer: Its name; it must be there.
    """

    def __init__(self, client: Client, *, stream: str, consumer: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._requests = 0
        self._wanted = 0
        self._messages: list[Delivery] = []
        self._refusal: Msg | None = None
        self._answered = asyncio.Event()

    async def fetch(
        self, at_most: int, *, wait_seconds: float = 0.0, max_bytes: int | None = None
    ) -> Sequence[Delivery]:
        """What there is; if that is nothing, what comes within the time, until there is enough.

        Args:
            max_bytes: Of all messages together. When the first alone has more, it is refused.

        Raises:
            nats.errors.Error: The consumer isn't there, or can't deliver now.
            OSError: The connection is broken.
        """
        if self._subscription is None:
            self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)
        if not self._messages:
            await self._request(at_most, wait_seconds, max_bytes)
            # The server says when there is no more. A connection that breaks says nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds + _GRACE_SECONDS):
                    await self._answered.wait()
        messages, self._messages = self._messages, []
        if self._refusal is not None and not messages:
            APIError.from_msg(self._refusal)  # raises it
        return messages

    async def close(self) -> None:
        """Fetch no more."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _request(self, at_most: int, wait_seconds: float, max_bytes: int | None) -> None:
        self._requests += 1
        self._wanted = at_most
        self._refusal = None
        self._answered.clear()
        until = {"expires": int(wait_seconds * 1e9)} if wait_seconds else {"no_wait": True}
        size = {} if max_bytes is None else {"max_bytes": max_bytes}
        await self._client.publish(
            self._subject,
            json.dumps({"batch": at_most, **size, **until}).encode(),
            reply=f"{self._inbox}.{self._requests}",
        )

    async def _receive(self, message: Msg) -> None:
        # What comes late, for an earlier request, is handed over with the next.
        if message.reply:
            self._messages.append(Delivery(self._client, message))
            if len(self._messages) >= self._wanted:
                self._answered.set()
        elif message.subject == f"{self._inbox}.{self._requests}":
            if (message.headers or {}).get(Header.STATUS) not in _NO_MORE:
                self._refusal = message
            self._answered.set()
