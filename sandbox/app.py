"""The sandbox as one ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.callbacks import Courier
from sandbox.control import Control
from sandbox.faults import FaultBoard
from sandbox.life import Lives
from sandbox.media import MediaHost
from sandbox.openai_api import OpenAIAPI, OpenAIError
from sandbox.settings import SandboxSettings
from sandbox.state import RequestRecord, SandboxState
from sandbox.twilio_api import TwilioAPI
from sandbox.twilio_errors import TwilioError


class Sandbox:
    """The pretend Twilio, the pretend OpenAI and the control API, wired together."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        client: httpx.AsyncClient,
        base_url: str,
    ) -> None:
        self.state = state
        self.faults = FaultBoard()
        self.closing = asyncio.Event()
        self._client = client
        courier = Courier(settings, state, client)
        self.lives = Lives(settings, state, self.faults, courier)
        media = MediaHost(state, base_url)
        twilio = TwilioAPI(settings, state, self.faults, self.lives, media, self.closing)
        openai = OpenAIAPI(settings, state, self.faults, self.closing)
        control = Control(settings, state, self.faults, courier, self.lives, base_url)
        self.app = FastAPI(title="Switchboard sandbox", lifespan=self._lifespan)
        self.app.include_router(control.router())
        self.app.include_router(openai.router())
        self.app.include_router(media.router())
        self.app.include_router(twilio.router())
        self.app.add_exception_handler(TwilioError, _refusal)
        self.app.add_exception_handler(OpenAIError, _refusal)
        self.app.add_middleware(RequestLog, state=state)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        await self.lives.cancel()
        await self._client.aclose()


class RequestLog:
    """Keeps a record of every request that isn't for the control API."""

    def __init__(self, app: ASGIApp, state: SandboxState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note what was asked and answered."""
        if scope["type"] != "http" or scope["path"].startswith("/sandbox/"):
            await self._app(scope, receive, send)
            return
        record = RequestRecord(
            at=self._state.now(),
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            authorized=any(name == b"authorization" for name, _ in scope["headers"]),
        )
        self._state.requests.append(record)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)


def _refusal(_: Request, error: Exception) -> Response:
    return cast("TwilioError | OpenAIError", error).response()
