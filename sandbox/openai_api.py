"""A pretend OpenAI: the Responses API and the list of models."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sandbox.connection import cut, hang
from sandbox.faults import FaultBoard
from sandbox.openai_answers import answer, last_user_text
from sandbox.openai_response import ResponseAnswer
from sandbox.settings import SandboxSettings
from sandbox.state import OpenAIRequest, SandboxState

_MODELS = ["gpt-6-luna", "gpt-transcribe", "gpt-realtime-2.1"]
_MODELS_CREATED = 1_780_272_000


class OpenAIError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer as OpenAI gives it."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


class OpenAIAPI:
    """The pretend OpenAI. Any model's name will do."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        faults: FaultBoard,
        closing: asyncio.Event,
    ) -> None:
        self._key = settings.openai_api_key.get_secret_value()
        self._state = state
        self._faults = faults
        self._closing = closing

    def router(self) -> APIRouter:
        """The routes below /openai/v1."""
        router = APIRouter(prefix="/openai/v1", include_in_schema=False)
        router.add_api_route("/responses", self.respond, methods=["POST"])
        router.add_api_route("/models", self.models, methods=["GET"])
        return router

    async def models(self, request: Request) -> Response:
        """The models there are."""
        self._authorize(request)
        models = [
            {"id": name, "object": "model", "created": _MODELS_CREATED, "owned_by": "sandbox"}
            for name in _MODELS
        ]
        return JSONResponse({"object": "list", "data": models})

    async def respond(self, request: Request) -> Response:
        """Answer the last thing the user said."""
        self._authorize(request)
        asked = await self._body(request)
        record = OpenAIRequest(at=self._state.now(), body=asked)
        self._state.openai_requests.append(record)
        strike, now = self._faults.strike, self._faults.now
        if limited := strike(now.openai_rate_limited):
            wait = limited.retry_after
            headers = None if wait is None else {"Retry-After": str(wait)}
            raise OpenAIError(
                429,
                "requests",
                "Rate limit reached for requests.",
                "rate_limit_exceeded",
                headers=headers,
            )
        if strike(now.openai_error_500):
            raise OpenAIError(500, "server_error", "The server had an error. Please try again.")
        if strike(now.openai_hang):
            return await hang(request, self._closing)
        question = last_user_text(asked)
        if question is None:
            raise _invalid("There is no text of the user in 'input'.", "input")
        record.answer = answer(question)
        made = ResponseAnswer(asked, record.answer, int(record.at.timestamp()))
        slow, broken = strike(now.openai_slow), strike(now.openai_cut)
        delay = slow.seconds if slow else 0
        if asked.get("stream"):
            after = broken.after_events if broken else None
            events = self._stream(request, made, delay, after)
            return StreamingResponse(events, media_type="text/event-stream")
        await asyncio.sleep(delay)
        if broken:
            return cut(request)
        return JSONResponse(made.whole())

    async def _stream(
        self, request: Request, made: ResponseAnswer, delay: float, cut_after: int | None
    ) -> AsyncIterator[str]:
        for number, event in enumerate(made.events()):
            if number == cut_after:
                cut(request)
                # The server ends this task when it notices.
                await self._closing.wait()
            await asyncio.sleep(delay)
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

    def _authorize(self, request: Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        valid = secrets.compare_digest(key.strip().encode(), self._key.encode())
        if scheme.lower() != "bearer" or not valid:
            raise OpenAIError(
                401, "invalid_request_error", "Incorrect API key provided.", "invalid_api_key"
            )

    async def _body(self, request: Request) -> dict[str, Any]:
        try:
            body = await request.json()
        except ValueError as error:
            raise _invalid("We could not parse the JSON body of your request.") from error
        if not isinstance(body, dict):
            raise _invalid("The body must be a JSON object.")
        for name, kinds in {"model": (str,), "input": (str, list)}.items():
            if not isinstance(body.get(name), kinds):
                raise _invalid(f"Missing or malformed parameter: '{name}'.", name)
        return body


def _invalid(message: str, param: str | None = None) -> OpenAIError:
    return OpenAIError(400, "invalid_request_error", message, param=param)
