"""Google's Text-to-Speech client over REST, asynchronously.

The library brings asynchronous gRPC, which no plain HTTP server can stand in for, and REST for
threads, which can't be cancelled and has no limit for the whole of a request. Its client takes a
transport from outside for such a case.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import aiohttp
from google.api_core import exceptions, gapic_v1
from google.cloud.texttospeech import SynthesizeSpeechRequest, SynthesizeSpeechResponse
from google.cloud.texttospeech_v1.services.text_to_speech.transports import TextToSpeechTransport
from google.oauth2.service_account import Credentials
from google.protobuf import json_format
from yarl import URL

from services.messaging.speech.google_token import GoogleToken

_PATH: Final = "v1/text:synthesize"
_CHUNK_BYTES: Final = 64 * 1024

Synthesize = Callable[..., Awaitable[SynthesizeSpeechResponse]]


class AsyncRestTransport(TextToSpeechTransport):
    """What `TextToSpeechAsyncClient` synthesizes through; it can nothing else.

    Args:
        base_url: Of the API; its path is kept.
        credentials: Whose universe the client checks; requests carry what `token` gives.
        max_bytes: A larger answer is not read.
    """

    def __init__(
        self,
        *,
        base_url: str,
        session: aiohttp.ClientSession,
        token: GoogleToken,
        credentials: Credentials,
        max_bytes: int,
    ) -> None:
        super().__init__(host=URL(base_url).host or "", credentials=credentials)
        self._url = f"{base_url}/{_PATH}"
        self._session = session
        self._token = token
        self._max_bytes = max_bytes
        self._wrapped_methods = {
            self.synthesize_speech: gapic_v1.method_async.wrap_method(  # type: ignore[no-untyped-call]  # It has no types.
                self.synthesize_speech, kind=self.kind
            )
        }

    @property
    def kind(self) -> str:
        return "rest_asyncio"

    @property
    def synthesize_speech(self) -> Synthesize:
        return self._synthesize

    async def _synthesize(
        self,
        request: SynthesizeSpeechRequest,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - The library's signature.
        metadata: Sequence[tuple[str, str]] = (),
        **_: Any,
    ) -> SynthesizeSpeechResponse:
        """One request.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: The answer is a refusal.
            aiohttp.ClientError, TimeoutError, ValueError: There was no good answer.
            UnavailableError: There is no token.
        """
        token = await self._token.get()
        headers = {
            **dict(metadata),
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }
        async with self._session.post(
            self._url,
            data=SynthesizeSpeechRequest.to_json(
                request,
                use_integers_for_enums=False,
                always_print_fields_with_no_presence=False,
                indent=None,
            ),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
        ) as response:
            if response.status == 401:
                self._token.forget(token)
            if response.status != 200:
                # Google's words may quote the text.
                raise exceptions.from_http_status(  # type: ignore[no-untyped-call]  # No types.
                    response.status, ""
                )
            content = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                content += chunk
                if len(content) > self._max_bytes:
                    raise ValueError("the answer is too large")
        try:
            answer: SynthesizeSpeechResponse = SynthesizeSpeechResponse.from_json(
                bytes(content), ignore_unknown_fields=True
            )
        except (json_format.ParseError, ValueError, TypeError, AttributeError):
            raise ValueError("the answer is malformed") from None
        return answer
