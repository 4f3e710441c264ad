"""Speech to text by OpenAI, or a server with the same API."""

from collections.abc import Sequence
from typing import Final

import openai
from openai.types.audio import Transcription

from services.common.errors import UnavailableError
from services.messaging.domain.language import LANGUAGES
from services.messaging.domain.text import storable
from services.messaging.openai_client import asking, request_timeout
from services.messaging.ports.speech import Transcript

# Of all models it alone knows several languages to expect, and keywords. (openai 3.54,
# `Transcriptions.create`.)
_SEVERAL_LANGUAGES: Final = "gpt-transcribe"


class OpenAITranscriber:
    """`Transcriber` on OpenAI's transcriptions.

    Args:
        client: Its owner closes it.
        keywords: Names and terms that callers are likely to say.
        timeout_seconds: For one recording in all.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        *,
        model: str,
        timeout_seconds: float,
        keywords: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._keywords = list(keywords)

    async def transcribe(self, wav: bytes, *, languages: Sequence[str]) -> Transcript:
        """What is said in a recording."""
        vendor = "the transcription"
        codes = list(dict.fromkeys(map(_iso_639_1, languages)))
        several = self._model.startswith(_SEVERAL_LANGUAGES)
        async with asking(vendor, field="recording", timeout_seconds=self._timeout_seconds):
            answer = await self._client.audio.transcriptions.create(
                file=("recording.wav", wav, "audio/wav"),
                model=self._model,
                response_format="json",
                languages=codes if several and codes else openai.omit,
                language=codes[0] if not several and len(codes) == 1 else openai.omit,
                keywords=self._keywords if several and self._keywords else openai.omit,
                timeout=request_timeout(self._timeout_seconds),
            )
        # The SDK hands over whatever came.
        text: object = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise UnavailableError(f"{vendor} gave no answer: no text in it")
        return Transcript(storable(text).strip(), _language(answer))


def _iso_639_1(language: str) -> str:
    known = LANGUAGES.get(language)
    return known.iso if known else language.partition("-")[0]


def _language(answer: Transcription) -> str | None:
    """The language heard first; models other than gpt-transcribe name none."""
    for language in answer.languages or ():
        code = getattr(language, "code", None)
        if isinstance(code, str) and code:
            return code
    return None
