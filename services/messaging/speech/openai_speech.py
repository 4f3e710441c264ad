"""Text to speech by OpenAI, or a server with the same API."""

from typing import Final

import openai

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.openai_client import asking, request_timeout
from services.messaging.speech import mp3

_MAX_CHARACTERS: Final = 4096
"""OpenAI's limit for `input`. (API reference, "Create speech".)"""

_VENDOR: Final = "OpenAI's speech"


class OpenAISpeech:
    """`Synthesizer` on OpenAI's speech; it speaks every language.

    Args:
        client: Its owner closes it.
        voice: The vendor's name of a voice.
        timeout_seconds: For one text in all.
    """

    name = "openai"

    def __init__(
        self, client: openai.AsyncOpenAI, *, model: str, voice: str, timeout_seconds: float
    ) -> None:
        self._client = client
        self._model = model
        self._voice = voice
        self._timeout_seconds = timeout_seconds

    def voice(self, language: str) -> str | None:
        """What names the sound; servers may have models of the same name."""
        return f"openai {self._client.base_url.host} {self._model} {self._voice} mp3"

    async def synthesize(self, text: str, language: str) -> bytes:
        """Speech."""
        if len(text) > _MAX_CHARACTERS:
            raise InvalidInputError("text", f"{_VENDOR} takes {_MAX_CHARACTERS} characters at most")
        async with (
            asking(_VENDOR, field="text", timeout_seconds=self._timeout_seconds),
            self._client.audio.speech.with_streaming_response.create(
                input=text,
                model=self._model,
                voice=self._voice,
                response_format="mp3",
                timeout=request_timeout(self._timeout_seconds),
            ) as response,
        ):
            content = bytearray()
            async for chunk in response.iter_bytes():
                content += chunk
                if len(content) > mp3.MAX_BYTES:
                    raise UnavailableError(f"{_VENDOR} answered with too much")
        return mp3.checked(bytes(content), _VENDOR)
