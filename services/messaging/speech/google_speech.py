"""Text to speech by Google Cloud."""

import asyncio
import json
from collections.abc import Mapping
from typing import Final

import aiohttp
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.texttospeech import (
    AudioConfig,
    AudioEncoding,
    SynthesisInput,
    TextToSpeechAsyncClient,
    VoiceSelectionParams,
)
from google.oauth2.service_account import Credentials
from pydantic import SecretStr

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.language import LANGUAGES
from services.messaging.speech import mp3
from services.messaging.speech.google_token import SCOPE, GoogleToken
from services.messaging.speech.google_transport import AsyncRestTransport

_MAX_TEXT_BYTES: Final = 5000
"""Google's limit for the text of a request. (Cloud Text-to-Speech, "Quotas & limits".)"""

_EFFECTS: Final = "telephony-class-application"
_VENDOR: Final = "Google's speech"
_NEVER: Final = frozenset({400, 413})
_CONNECT_SECONDS: Final = 3.0
# Between two calls there may be minutes.
_KEEPALIVE_SECONDS: Final = 240.0


class GoogleSpeech:
    """`Synthesizer` on Google's Text-to-Speech. It is made inside the event loop, and closed.

    Args:
        service_account: Its JSON; `token_uri` there says where tokens are fetched.
        voices: Google's name of a voice, by language (BCP 47). For a language without, Google
            chooses, and refuses languages it doesn't speak.
        speaking_rate: 1 is the voice's normal pace.
        timeout_seconds: For one text in all, a token for it included.

    Raises:
        ValueError: The service account's JSON is malformed.
    """

    name = "google"

    def __init__(
        self,
        service_account: SecretStr,
        *,
        base_url: str,
        voices: Mapping[str, str],
        speaking_rate: float = 1.0,
        timeout_seconds: float,
    ) -> None:
        account = json.loads(service_account.get_secret_value())
        credentials: Credentials = Credentials.from_service_account_info(  # type: ignore[no-untyped-call]  # No types.
            account, scopes=[SCOPE]
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        token = GoogleToken(
            credentials,
            token_uri=account["token_uri"],
            session=self._session,
            timeout_seconds=timeout_seconds,
        )
        self._client = TextToSpeechAsyncClient(
            transport=AsyncRestTransport(
                base_url=base_url,
                session=self._session,
                token=token,
                credentials=credentials,
                # Base64 makes four bytes of three.
                max_bytes=2 * mp3.MAX_BYTES,
            )
        )
        self._voices = dict(voices)
        self._timeout_seconds = timeout_seconds
        self._audio = AudioConfig(
            audio_encoding=AudioEncoding.MP3,
            speaking_rate=speaking_rate,
            effects_profile_id=[_EFFECTS],
        )
        self._sound = f"{_EFFECTS} {speaking_rate:g} mp3"

    def voice(self, language: str) -> str | None:
        """What names the sound."""
        return f"google {self._voices.get(language, language)} {self._sound}"

    async def synthesize(self, text: str, language: str) -> bytes:
        """Speech."""
        if len(text.encode()) > _MAX_TEXT_BYTES:
            raise InvalidInputError("text", f"{_VENDOR} takes {_MAX_TEXT_BYTES} bytes at most")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._client.synthesize_speech(
                    input=SynthesisInput(text=text),
                    voice=VoiceSelectionParams(
                        language_code=_google_language(language),
                        name=self._voices.get(language, ""),
                    ),
                    audio_config=self._audio,
                    timeout=self._timeout_seconds,
                )
        except GoogleAPICallError as error:
            if error.code in _NEVER:
                raise InvalidInputError("text", f"{_VENDOR} refuses it") from None
            raise UnavailableError(f"{_VENDOR} answered HTTP {error.code:d}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"{_VENDOR} gave no answer: {type(error).__name__}") from None
        return mp3.checked(answer.audio_content, _VENDOR)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _google_language(language: str) -> str:
    known = LANGUAGES.get(language)
    return known.google_speech if known else language
