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
from sandbox.google_account import GoogleAccount
from sandbox.google_api import GoogleAPI, GoogleError
from sandbox.life import Lives
from sandbox.media import MediaHost
from sandbox.openai_api import OpenAIAPI
from sandbox.openai_audio import OpenAIAudio
from sandbox.openai_errors import OpenAIError
from sandbox.phone.audio import AudioCache
from sandbox.phone.exchange import Exchange
from sandbox.phone.recordings import Recordings
from sandbox.phone_control import PhoneControl
from sandbox.settings import SandboxSettings
from sandbox.state import RequestRecord, SandboxState
from sandbox.twilio_api import TwilioAPI
from sandbox.twilio_auth import TwilioAuth
from sandbox.twilio_errors import TwilioError
from sandbox.vendor_control import VendorControl
from sandbox.vendors import Latencies, Vendors


class Sandbox:
    """The pretend Twilio, OpenAI and Google and the control API, wired together."""

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
        auth = TwilioAuth(settings)
        twilio = TwilioAPI(settings, state, self.faults, self.lives, media, auth, self.closing)
        self.vendors = Vendors(_latencies(settings), state, self.faults, self.closing)
        recordings = Recordings(settings, base_url, auth, self.faults, self.vendors)
        played = AudioCache(client, courier.reachable, settings.webhook_timeout)
        self.exchange = Exchange(settings, self.faults, courier, played, recordings, state.now)
        phone_control = PhoneControl(self.exchange, recordings)
        openai = OpenAIAPI(settings, state, self.faults, self.vendors, self.closing)
        audio = OpenAIAudio(settings, self.faults, self.vendors)
        given = settings.google_account
        self.google_account = GoogleAccount(given.get_secret_value() if given else None, base_url)
        google = GoogleAPI(self.google_account, self.vendors)
        vendor_control = VendorControl(state, self.vendors, self.google_account)
        control = Control(
            settings,
            state,
            self.faults,
            courier,
            self.lives,
            self.exchange,
            self.vendors,
            base_url,
        )
        self.app = FastAPI(title="Switchboard sandbox", lifespan=self._lifespan)
        self.app.include_router(control.router())
        self.app.include_router(vendor_control.router())
        self.app.include_router(phone_control.router())
        self.app.include_router(openai.router())
        self.app.include_router(audio.router())
        self.app.include_router(google.router())
        self.app.include_router(media.router())
        self.app.include_router(recordings.router())
        # The last: it also has what Twilio has and the sandbox hasn't.
        self.app.include_router(twilio.router())
        self.app.add_exception_handler(TwilioError, _refusal)
        self.app.add_exception_handler(OpenAIError, _refusal)
        self.app.add_exception_handler(GoogleError, _refusal)
        self.app.add_middleware(RequestLog, state=state)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        await self.lives.cancel()
        await self.exchange.cancel()
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
    return cast("TwilioError | OpenAIError | GoogleError", error).response()


def _latencies(settings: SandboxSettings) -> Latencies:
    return Latencies(
        transcription=settings.transcription,
        answer=settings.answer,
        answer_word=settings.answer_word,
        speech=settings.speech,
        google_speech=settings.speech,
        speech_character=settings.speech_character,
    )
