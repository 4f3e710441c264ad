"""HTTP for Twilio's SDK: with timeouts, without retries, and exact about what went wrong."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
from twilio.http import AsyncHttpClient  # type: ignore[import-untyped]  # No stubs.
from twilio.http.response import Response  # type: ignore[import-untyped]  # No stubs.

from services.messaging.ports.clock import Clock
from services.messaging.providers.twilio.dates import rfc5322_time

_MAX_CONNECT_SECONDS: Final = 5.0
_MAX_EXPLANATION: Final = 1000
_LONGEST_RETRY_AFTER: Final = timedelta(hours=1)


class NotSentError(Exception):
    """There was no connection, so nothing was sent."""


class RefusedError(Exception):
    """An answer that is no success.

    Attributes:
        status: Of HTTP.
        code: Twilio's error code; None when the answer is not in Twilio's words.
        explanation: What Twilio says about it.
        retry_after: How long we are asked to wait.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.code: int | None = None
        self.explanation = f"HTTP {status}"
        self.retry_after = _retry_after(headers.get("Retry-After"))
        with suppress(ValueError):
            document = json.loads(text)
            if isinstance(document, dict) and isinstance(document.get("code"), int):
                self.code = document["code"]
                # `message` in Twilio's own format, `title` in RFC 9457's.
                words = document.get("message") or document.get("title") or self.explanation
                self.explanation = str(words).replace("\0", "")[:_MAX_EXPLANATION]


class Transport(AsyncHttpClient):  # type: ignore[misc]  # The SDK has no types.
    """The SDK's HTTP on aiohttp.

    The SDK's own asynchronous client has no timeout at all, whatever it is given (9.13), and
    hides the headers of refusals.

    Attributes:
        clock_ahead: By how much our clock was ahead of Twilio's when it last answered.
    """

    def __init__(self, timeout_seconds: float, clock: Clock) -> None:
        super().__init__(logging.getLogger(__name__), True, timeout_seconds)
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds,
            sock_connect=min(timeout_seconds / 2, _MAX_CONNECT_SECONDS),
        )
        self._session: aiohttp.ClientSession | None = None
        self._clock = clock
        self.clock_ahead = timedelta()

    async def open(self) -> None:
        """Allow requests."""
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            # How many may be sent at once is the dispatcher's business.
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        uri: str,
        params: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - The SDK's signature; ours holds instead.
        allow_redirects: bool = False,
    ) -> Response:
        """One request, never repeated.

        Raises:
            NotSentError: No connection was made.
            RefusedError: The answer is no success.
            aiohttp.ClientError, TimeoutError: There was no whole answer.
            ValueError: The answer is no JSON object.
        """
        if self._session is None:
            raise RuntimeError("the provider is not open; use it as a context manager")
        if auth:
            headers = {**(headers or {}), "Authorization": aiohttp.encode_basic_auth(*auth)}
        try:
            async with self._session.request(
                method,
                uri,
                params=params,
                data=data,
                headers=headers,
                allow_redirects=allow_redirects,
            ) as response:
                text = await response.text()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSentError(type(error).__name__) from error
        with suppress(ValueError, KeyError):
            self.clock_ahead = self._clock() - rfc5322_time(response.headers["Date"])
        if not 200 <= response.status < 300:
            raise RefusedError(response.status, text, response.headers)
        if not isinstance(json.loads(text), dict):
            # The SDK would fail in some way of its own.
            raise ValueError("the answer is no JSON object")  # noqa: TRY004 - Nobody passed a type.
        return Response(response.status, text, response.headers)


def _retry_after(value: str | None) -> timedelta | None:
    """Seconds or a date, RFC 9110, 10.2.3."""
    if not value:
        return None
    try:
        wait = (
            timedelta(seconds=int(value))
            if value.strip().isdecimal()
            else rfc5322_time(value) - datetime.now(UTC)
        )
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta()), _LONGEST_RETRY_AFTER)
