"""The sandbox in a test: its settings, Twilio's SDK pointed at it, and a receiver of webhooks."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import uvicorn
from starlette.datastructures import Headers, MultiDict
from starlette.types import Receive, Scope, Send
from twilio.http.http_client import (  # type: ignore[import-untyped]  # No stubs.
    TwilioHttpClient,
)
from twilio.request_validator import (  # type: ignore[import-untyped]  # No stubs.
    RequestValidator,
)
from twilio.rest import Client  # type: ignore[import-untyped]  # No stubs.

from sandbox.settings import SandboxSettings

ACCOUNT_SID = "AC0123456789abcdef0123456789abcdef"
AUTH_TOKEN = "first-token"
OUR_NUMBER = "whatsapp:+14155238886"
CONTACT = "whatsapp:+972501234567"
PUBLIC_HOST = "https://switchboard.example"


def sandbox_settings(**changes: Any) -> SandboxSettings:
    """Settings for a sandbox on a free port whose messages live fast."""
    values: dict[str, Any] = {
        "port": 0,
        "public_host": PUBLIC_HOST,
        "account_sid": ACCOUNT_SID,
        "auth_token": f"{AUTH_TOKEN},second-token",
        "whatsapp_number": OUR_NUMBER,
        "openai_api_key": "openai-key",
        "sent_after": 0.02,
        "delivered_after": 0.04,
        "read_after": 0.06,
    }
    return SandboxSettings(**values | changes)


class _RedirectedHttpClient(TwilioHttpClient):  # type: ignore[misc]  # Untyped base.
    def __init__(self, base_url: str, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        return super().request(method, self._base_url + parts.path + query, *args, **kwargs)


@contextmanager
def twilio_client(base_url: str, token: str = AUTH_TOKEN, timeout: float = 10) -> Iterator[Client]:
    """Twilio's SDK, talking to a sandbox instead of api.twilio.com."""
    http_client = _RedirectedHttpClient(base_url, timeout)
    with contextlib.closing(http_client.session):
        yield Client(ACCOUNT_SID, token, http_client=http_client)


@dataclass(frozen=True)
class Webhook:
    """A request as the receiver got it."""

    path: str
    query: str
    headers: Headers
    form: MultiDict

    @property
    def url(self) -> str:
        """The address that the sender should have signed."""
        return f"{PUBLIC_HOST}{self.path}" + (f"?{self.query}" if self.query else "")

    def signed_by(self, token: str) -> bool:
        """Whether Twilio's SDK takes the signature."""
        valid: bool = RequestValidator(token).validate(
            self.url, self.form, self.headers["X-Twilio-Signature"]
        )
        return valid


@dataclass
class Receiver:
    """An application that takes webhooks and answers as told."""

    base_url: str
    received: list[Webhook] = field(default_factory=list)
    status: int = 200
    silent: asyncio.Event | None = None

    @property
    def statuses(self) -> list[str]:
        """The message statuses in the order they arrived."""
        return [webhook.form["MessageStatus"] for webhook in self.received]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.received.append(
            Webhook(
                path=scope["raw_path"].decode(),
                query=scope["query_string"].decode(),
                headers=Headers(scope=scope),
                form=MultiDict(parse_qsl(body.decode(), keep_blank_values=True)),
            )
        )
        if self.silent is not None:
            await self.silent.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"<Response/>"})


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """Serve a receiver over a real socket while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        receiver = Receiver(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = _Server(
            uvicorn.Config(receiver, lifespan="off", log_config=None, access_log=False)
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield receiver
        finally:
            if receiver.silent is not None:
                receiver.silent.set()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield
