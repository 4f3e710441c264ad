"""Audio that calls are told to play, cached by address as Twilio does."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from sandbox.phone.mp3 import NotMp3Error, mp3_seconds, mp3_title
from sandbox.phone.twiml import NOT_AUDIO, UNREACHABLE, TwimlError

_MAX_AGE = re.compile(r"\bmax-age=(\d+)")
_UNCACHEABLE = re.compile(r"\bno-(store|cache)\b")


@dataclass
class Audio:
    """A file.

    Attributes:
        title: The words spoken in it, where a pretend vendor made it.
        fresh_until: On the event loop's clock; later Twilio asks whether it is still the same.
    """

    seconds: float
    title: str | None
    etag: str | None
    fresh_until: float


class AudioCache:
    """Fetches what is to be played.

    Args:
        reachable: Where an address is to be found on this machine.
        seconds: For one file.
    """

    def __init__(
        self, client: httpx.AsyncClient, reachable: Callable[[str], str], seconds: float
    ) -> None:
        self._client = client
        self._reachable = reachable
        self._seconds = seconds
        self._files: dict[str, Audio] = {}

    def clear(self) -> None:
        """Forget all files."""
        self._files.clear()

    async def get(self, url: str) -> tuple[Audio, int | None]:
        """A file, and the status of the answer; None when nothing had to be asked.

        Raises:
            TwimlError: It can't be had, or isn't MP3 with its type and length.
        """
        known = self._files.get(url)
        if known and asyncio.get_running_loop().time() < known.fresh_until:
            return known, None
        headers = {"User-Agent": "TwilioProxy/1.1"}
        if known and known.etag:
            headers["If-None-Match"] = known.etag
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._client.get(
                    self._reachable(url), headers=headers, timeout=self._seconds
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise TwimlError(UNREACHABLE, f"{url}: {type(error).__name__}") from None
        if known and response.status_code == httpx.codes.NOT_MODIFIED:
            known.fresh_until = _fresh_until(response)
            return known, response.status_code
        audio = _audio(url, response)
        if not _UNCACHEABLE.search(response.headers.get("Cache-Control", "")):
            self._files[url] = audio
        return audio, response.status_code


def _audio(url: str, response: httpx.Response) -> Audio:
    if response.status_code != httpx.codes.OK:
        raise TwimlError(UNREACHABLE, f"{url}: HTTP {response.status_code}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind not in ("audio/mpeg", "audio/mp3"):
        raise TwimlError(NOT_AUDIO, f"{url}: {kind or 'no Content-Type'}")
    if response.headers.get("Content-Length") != str(len(response.content)):
        raise TwimlError(NOT_AUDIO, f"{url}: no Content-Length")
    try:
        seconds = mp3_seconds(response.content)
    except NotMp3Error as error:
        raise TwimlError(NOT_AUDIO, f"{url}: {error}") from None
    return Audio(
        seconds=seconds,
        title=mp3_title(response.content),
        etag=response.headers.get("ETag"),
        fresh_until=_fresh_until(response),
    )


def _fresh_until(response: httpx.Response) -> float:
    found = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
    return asyncio.get_running_loop().time() + (int(found[1]) if found else 0)
