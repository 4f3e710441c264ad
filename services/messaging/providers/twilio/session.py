"""Twilio's SDK for one account, with connections that are kept open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr
from twilio.rest import Client  # type: ignore[import-untyped]  # No stubs.

from services.messaging.ports.clock import Clock
from services.messaging.providers.twilio.transport import Transport


@dataclass(frozen=True)
class TwilioSession:
    """An account, ready for requests.

    Attributes:
        transport: How `client` makes its requests.
        base_url: `https://api.twilio.com`, or the sandbox.
    """

    client: Client
    transport: Transport
    base_url: str


@asynccontextmanager
async def open_session(
    *,
    account_sid: str,
    auth_token: SecretStr,
    base_url: str,
    request_timeout: timedelta,
    clock: Clock,
) -> AsyncIterator[TwilioSession]:
    """A session while the context is open.

    Args:
        request_timeout: For one request in all. Connecting has half of it, at most 5 s.
    """
    transport = Transport(request_timeout.total_seconds(), clock)
    client = Client(
        account_sid,
        auth_token.get_secret_value(),
        http_client=transport,
        # Otherwise the SDK looks for a region in the process's environment.
        environment={"TWILIO_REGION": ""},
    )
    client.api.base_url = base_url
    await transport.open()
    try:
        yield TwilioSession(client, transport, base_url)
    finally:
        await transport.close()
