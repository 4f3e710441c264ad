"""OpenAI's SDK as everything here uses it: no retries, times that end, our own errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import openai
from pydantic import SecretStr

from services.common.errors import InvalidInputError, UnavailableError
from services.common.tracing import request_id

_CONNECT_SECONDS: Final = 3.0
# The turns of a call are further apart than the 5 s after which httpx closes by default.
_KEEPALIVE_SECONDS: Final = 120.0
# What was sent is at fault, and would be again.
_NEVER: Final = frozenset({400, 413, 415, 422})


def open_client(*, api_key: SecretStr, base_url: str) -> openai.AsyncOpenAI:
    """A client for all that asks one server, which then share its connections; to be closed.

    The SDK's own defaults are ten minutes and two retries. Each request bounds its time by
    `asking`; trying again is the business of whoever asked.
    """
    return openai.AsyncOpenAI(
        api_key=api_key.get_secret_value(),
        base_url=base_url,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            limits=httpx2.Limits(
                max_connections=1000,
                max_keepalive_connections=100,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
            event_hooks={"request": [_name_request]},
        ),
    )


async def _name_request(request: httpx2.Request) -> None:
    """Tell OpenAI what our logs call this, for its support to find it again.

    https://platform.openai.com/docs/api-reference/debugging-requests
    """
    if own_id := request_id():
        request.headers["X-Client-Request-Id"] = own_id


def request_timeout(seconds: float) -> httpx2.Timeout:
    """The SDK's own timeout, for each step of a request that may take so long in all."""
    return httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


@contextlib.asynccontextmanager
async def asking(vendor: str, *, field: str, timeout_seconds: float) -> AsyncIterator[None]:
    """Bounds the time of what is asked inside, and turns what goes wrong into our errors.

    The vendor's words are left out of them: they may quote the key, or what a caller said.

    Args:
        vendor: Who is asked, for the error's text.
        field: What is at fault when the vendor refuses the request for good.

    Raises:
        InvalidInputError: Asking again would not help.
        UnavailableError: Asking again later may help.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except openai.APIStatusError as error:
        if error.status_code in _NEVER:
            raise InvalidInputError(field, f"{vendor} refuses it") from None
        raise UnavailableError(f"{vendor} answered HTTP {error.status_code}") from None
    except (openai.OpenAIError, httpx2.HTTPError, TimeoutError, ValueError) as error:
        # ValueError: the answer is no JSON, or not of the documented form.
        raise UnavailableError(f"{vendor} gave no answer: {type(error).__name__}") from None
