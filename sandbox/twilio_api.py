"""Twilio's REST API for messages and their media, as far as Switchboard uses it."""

import asyncio
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.datastructures import MultiDict
from starlette.responses import JSONResponse, RedirectResponse, Response

from sandbox.connection import NoResponse, hang, reset
from sandbox.faults import FaultBoard, Operation
from sandbox.life import Lives
from sandbox.media import MediaHost
from sandbox.message_form import new_message
from sandbox.message_json import media_json, message_json, page
from sandbox.settings import SandboxSettings
from sandbox.state import Message, SandboxState
from sandbox.twilio_auth import TwilioAuth
from sandbox.twilio_errors import API_VERSION, TwilioError, not_found


class TwilioAPI:
    """The pretend Twilio."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        faults: FaultBoard,
        lives: Lives,
        media: MediaHost,
        auth: TwilioAuth,
        closing: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._media = media
        self._auth = auth
        self._state = state
        self._faults = faults
        self._lives = lives
        self._closing = closing

    def router(self) -> APIRouter:
        """The routes below /2010-04-01."""
        router = APIRouter(prefix=f"/{API_VERSION}", include_in_schema=False)
        messages = "/Accounts/{account_sid}/Messages"
        router.add_api_route(f"{messages}.json", self.create, methods=["POST"])
        router.add_api_route(f"{messages}.json", self.list_messages, methods=["GET"])
        router.add_api_route(f"{messages}/{{sid}}.json", self.fetch, methods=["GET"])
        media = f"{messages}/{{sid}}/Media"
        router.add_api_route(f"{media}.json", self.list_media, methods=["GET"])
        router.add_api_route(f"{media}/{{media_sid}}.json", self.fetch_media, methods=["GET"])
        router.add_api_route(f"{media}/{{media_sid}}", self.media_content, methods=["GET"])
        everything = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        router.add_api_route("/{rest:path}", self.unknown, methods=everything)
        return router

    async def create(self, request: Request, account_sid: str) -> Response:
        """Accept a message, unless it is wrong or a fault strikes."""
        self._auth.check(request, account_sid)
        if silence := await self._misbehave(request, "create"):
            return silence
        strike, now = self._faults.strike, self._faults.now
        if rejection := strike(now.reject):
            raise TwilioError(400, rejection.error_code)
        body = (await request.body()).decode("utf-8", "replace")
        form = MultiDict(parse_qsl(body, keep_blank_values=True))
        message = new_message(form, self._settings, self._state)
        self._state.add(message)
        answer = JSONResponse(message_json(message, account_sid), status_code=201)
        await self._lives.begin(message)
        if now.hang is not None and now.hang.accept and strike(now.hang, "create"):
            return await hang(request, self._closing)
        if strike(now.reset_after_accept):
            return reset(request)
        if strike(now.error_500_after_accept):
            raise TwilioError(500, 20500)
        return answer

    async def list_messages(self, request: Request, account_sid: str) -> Response:
        """A page of messages."""
        self._auth.check(request, account_sid)
        if silence := await self._misbehave(request, "read"):
            return silence
        messages = list(self._state.messages.values())
        return JSONResponse(page(messages, request.query_params, request.url.path, account_sid))

    async def fetch(self, request: Request, account_sid: str, sid: str) -> Response:
        """One message."""
        self._auth.check(request, account_sid)
        if silence := await self._misbehave(request, "read"):
            return silence
        return JSONResponse(message_json(self._message(request, sid), account_sid))

    async def list_media(self, request: Request, account_sid: str, sid: str) -> Response:
        """The media of a message."""
        self._auth.check(request, account_sid)
        message, path = self._message(request, sid), request.url.path
        return JSONResponse(
            {
                "media_list": [media_json(m, message, account_sid) for m in message.media],
                "first_page_uri": path,
                "next_page_uri": None,
                "previous_page_uri": None,
                "uri": path,
                "page": 0,
                "page_size": 50,
                "start": 0,
                "end": max(len(message.media) - 1, 0),
            }
        )

    async def fetch_media(
        self, request: Request, account_sid: str, sid: str, media_sid: str
    ) -> Response:
        """What is known of a file."""
        self._auth.check(request, account_sid)
        message = self._message(request, sid)
        for media in message.media:
            if media.sid == media_sid:
                return JSONResponse(media_json(media, message, account_sid))
        raise not_found(request.url.path)

    async def media_content(
        self, request: Request, account_sid: str, sid: str, media_sid: str
    ) -> Response:
        """The way to a file, as Twilio gives it: another host, and no credentials wanted there."""
        self._auth.check(request, account_sid)
        if self._faults.strike(self._faults.now.media_missing):
            raise not_found(request.url.path)
        for media in self._message(request, sid).media:
            if media.sid == media_sid:
                return RedirectResponse(self._media.address(media), status_code=307)
        raise not_found(request.url.path)

    async def unknown(self, request: Request) -> Response:
        """Whatever else Twilio has."""
        raise not_found(request.url.path)

    def _message(self, request: Request, sid: str) -> Message:
        message = self._state.messages.get(sid)
        if message is None:
            raise not_found(request.url.path)
        return message

    async def _misbehave(self, request: Request, operation: Operation) -> NoResponse | None:
        """Let the faults strike that come before anything is done."""
        strike, now = self._faults.strike, self._faults.now
        if latency := strike(now.latency, operation):
            await asyncio.sleep(latency.seconds)
        if limited := strike(now.rate_limited, operation):
            wait = limited.retry_after
            headers = None if wait is None else {"Retry-After": str(wait)}
            raise TwilioError(429, 20429, headers=headers)
        if strike(now.error_500, operation):
            raise TwilioError(500, 20500)
        if now.hang is not None and not now.hang.accept and strike(now.hang, operation):
            return await hang(request, self._closing)
        return None
