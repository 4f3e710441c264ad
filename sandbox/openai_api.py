"""A pretend OpenAI: the Responses API and the list of models."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sandbox.connection import cut, hang, stays
from sandbox.faults import FaultBoard
from sandbox.openai_answers import answer_with_tools, last_user_text, offered_tools
from sandbox.openai_errors import authorize, invalid, json_object, rate_limited, server_error
from sandbox.openai_response import ResponseAnswer
from sandbox.settings import SandboxSettings
from sandbox.state import OpenAIRequest, SandboxState, VendorCall
from sandbox.vendors import Vendors

# With the day on which OpenAI switches it off, where one is announced.
_MODELS = {
    "gpt-6-luna": None,
    "gpt-transcribe": None,
    "gpt-realtime-2.1": None,
    "gpt-4o-mini-tts": "2027-01-06",
    "tts-1": "2027-01-06",
}
_MODELS_CREATED = 1_780_272_000


class OpenAIAPI:
    """The pretend OpenAI. Any model's name will do."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        faults: FaultBoard,
        vendors: Vendors,
        closing: asyncio.Event,
    ) -> None:
        self._key = settings.openai_api_key.get_secret_value()
        self._state = state
        self._faults = faults
        self._vendors = vendors
        self._closing = closing

    def router(self) -> APIRouter:
        """The routes below /openai/v1."""
        router = APIRouter(prefix="/openai/v1", include_in_schema=False)
        router.add_api_route("/responses", self.respond, methods=["POST"])
        router.add_api_route("/models", self.models, methods=["GET"])
        return router

    async def models(self, request: Request) -> Response:
        """The models there are."""
        authorize(request, self._key)
        models = [
            {
                "id": name,
                "object": "model",
                "created": _MODELS_CREATED,
                "owned_by": "sandbox",
                "shutdown_date": shutdown_date,
            }
            for name, shutdown_date in _MODELS.items()
        ]
        return JSONResponse({"object": "list", "data": models})

    async def respond(self, request: Request) -> Response:
        """Answer the last thing the user said."""
        authorize(request, self._key)
        asked = await _asked(request)
        record = OpenAIRequest(at=self._state.now(), body=asked)
        self._state.openai_requests.append(record)
        question = last_user_text(asked)
        call = self._vendors.note("answer", question or "")
        call.outcome = "refused"
        strike, now = self._faults.strike, self._faults.now
        if limited := strike(now.openai_rate_limited):
            raise rate_limited(limited.retry_after)
        if strike(now.openai_error_500):
            raise server_error()
        if strike(now.openai_hang):
            return await hang(request, self._closing)
        if question is None:
            raise invalid("There is no text of the user in 'input'.", "input")
        call.outcome = None
        record.answer, tool = answer_with_tools(question, offered_tools(asked))
        made = ResponseAnswer(asked, record.answer, int(record.at.timestamp()), tool)
        slow, broken = strike(now.openai_slow), strike(now.openai_cut)
        delay = slow.seconds if slow else 0
        if asked.get("stream"):
            after = broken.after_events if broken else None
            events = self._stream(request, made, call, delay, after)
            return StreamingResponse(events, media_type="text/event-stream")
        latencies = self._vendors.latencies
        words = latencies.answer_word * len(record.answer.split())
        patient = await stays(request, latencies.answer + words + delay)
        call.outcome = "abandoned" if not patient else "refused" if broken else "answered"
        call.seconds = (self._state.now() - call.at).total_seconds()
        return cut(request) if broken else JSONResponse(made.whole())

    async def _stream(
        self,
        request: Request,
        made: ResponseAnswer,
        call: VendorCall,
        delay: float,
        cut_after: int | None,
    ) -> AsyncIterator[str]:
        latencies, words = self._vendors.latencies, 0
        call.outcome = "abandoned"
        try:
            for number, event in enumerate(made.events()):
                if number == cut_after:
                    call.outcome = "refused"
                    cut(request)
                    # The server ends this task when it notices.
                    await self._closing.wait()
                if event["type"] == "response.output_text.delta":
                    await asyncio.sleep(latencies.answer_word if words else latencies.answer)
                    words += 1
                await asyncio.sleep(delay)
                if event["type"] == "response.completed":
                    call.outcome = "answered"
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        finally:
            call.seconds = (self._state.now() - call.at).total_seconds()


async def _asked(request: Request) -> dict[str, Any]:
    body = await json_object(request)
    for name, kinds in {"model": (str,), "input": (str, list)}.items():
        if not isinstance(body.get(name), kinds):
            raise invalid(f"Missing or malformed parameter: '{name}'.", name)
    return body
