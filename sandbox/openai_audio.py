"""A pretend OpenAI that hears and speaks."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sandbox.faults import FaultBoard, VendorFault
from sandbox.multipart import NotMultipartError, multipart_form
from sandbox.openai_errors import (
    OpenAIError,
    authorize,
    invalid,
    json_object,
    rate_limited,
    server_error,
)
from sandbox.phone.mp3 import silent_mp3
from sandbox.phone.speaking import languages_of, spoken_seconds
from sandbox.phone.wav import NotWavError, Wav, read_wav
from sandbox.settings import SandboxSettings
from sandbox.vendors import Vendors

_MAX_AUDIO = 25 * 1024 * 1024
_MAX_TEXT = 4096
_QUIET = 500
"""Samples below it are no speech."""
INVENTED = "Thanks for watching!"
"""What real models make of silence."""


class OpenAIAudio:
    """Transcription and speech. Any model's or voice's name will do."""

    def __init__(self, settings: SandboxSettings, faults: FaultBoard, vendors: Vendors) -> None:
        self._key = settings.openai_api_key.get_secret_value()
        self._faults = faults
        self._vendors = vendors

    def router(self) -> APIRouter:
        """The routes below /openai/v1/audio."""
        router = APIRouter(prefix="/openai/v1/audio", include_in_schema=False)
        router.add_api_route("/transcriptions", self.transcribe, methods=["POST"])
        router.add_api_route("/speech", self.speak, methods=["POST"])
        return router

    async def transcribe(self, request: Request) -> Response:
        """What is said in a file, as `gpt-transcribe` answers in JSON."""
        authorize(request, self._key)
        try:
            form = await multipart_form(request)
        except NotMultipartError as error:
            raise invalid(f"Could not parse multipart form: {error}") from error
        files = [part for part in form if part.name == "file" and part.filename]
        if not files:
            raise invalid("Missing required parameter: 'file'.", "file")
        if not any(part.name == "model" and part.content for part in form):
            raise invalid("Missing required parameter: 'model'.", "model")
        content = files[0].content
        if len(content) > _MAX_AUDIO:
            raise OpenAIError(
                413, "invalid_request_error", "Maximum content size limit (26214400) exceeded."
            )
        try:
            heard = read_wav(content)
        except NotWavError as error:
            self._vendors.note("transcription", "").outcome = "refused"
            raise invalid(f"The audio file could not be decoded: {error}", "file") from error
        call = self._vendors.note("transcription", heard.source or heard.text or "")
        text = self._text(heard)
        return await self._vendors.serve(
            request,
            call,
            self._vendors.latencies.transcription,
            refusal,
            lambda: JSONResponse(_transcription(text, heard.seconds)),
        )

    async def speak(self, request: Request) -> Response:
        """A text as MP3."""
        authorize(request, self._key)
        asked = await json_object(request)
        text = asked.get("input")
        if not isinstance(text, str) or not text.strip():
            raise invalid("Missing or malformed parameter: 'input'.", "input")
        if len(text) > _MAX_TEXT:
            raise invalid(f"'input' must have at most {_MAX_TEXT} characters.", "input")
        for name in ("model", "voice"):
            if not asked.get(name):
                raise invalid(f"Missing required parameter: '{name}'.", name)
        if asked.get("response_format", "mp3") != "mp3":
            raise invalid("The sandbox speaks MP3 only.", "response_format")
        latencies = self._vendors.latencies
        return await self._vendors.serve(
            request,
            self._vendors.note("speech", text),
            latencies.speech + latencies.speech_character * len(text),
            refusal,
            lambda: Response(silent_mp3(spoken_seconds(text), text), media_type="audio/mpeg"),
        )

    def _text(self, heard: Wav) -> str:
        if heard.text is not None:
            return heard.text
        if heard.loudest < _QUIET:
            invents = self._faults.strike(self._faults.now.transcription_invents)
            return INVENTED if invents else ""
        return f"Somebody spoke for {heard.seconds:.1f} seconds."


def refusal(fault: VendorFault) -> OpenAIError:
    """A fault as OpenAI tells it."""
    return rate_limited(fault.retry_after) if fault.kind == "rate_limited" else server_error()


def _transcription(text: str, seconds: float) -> dict[str, Any]:
    return {
        "text": text,
        "languages": [{"code": code} for code in languages_of(text)],
        "usage": {"type": "duration", "seconds": seconds},
    }
