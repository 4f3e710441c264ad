"""`/audio/{sha256}.mp3`: rendered speech for Twilio to play.

Twilio fetches it without a signature, so anyone may; but a name can't be guessed, and there is no
list. What a name stands for never changes.
"""

import re
import time
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter

from services.common.audio import AUDIO_ID
from services.common.errors import UnavailableError
from services.common.refusals import FailureLimiter, sender_of
from services.webhook.audio_cache import AudioCache

_SUFFIX: Final = ".mp3"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def audio_router(
    cache: AudioCache,
    *,
    registry: CollectorRegistry,
    misses_per_minute: int = 60,
    monotonic: Callable[[], float] = time.monotonic,
) -> APIRouter:
    """`/audio/{name}`.

    Args:
        misses_per_minute: Names that don't exist, after which a sender gets 429 for what isn't in
            memory.
        monotonic: Clock in seconds.
    """
    router = APIRouter()
    misses = FailureLimiter(misses_per_minute, monotonic)
    requests = Counter(
        "switchboard_audio_requests",
        "Requests for audio files by where the file was",
        ["outcome"],
        registry=registry,
    )

    def refused(outcome: str, status: int, text: str, retry_after: int | None = None) -> Response:
        requests.labels(outcome).inc()
        headers = {"cache-control": "no-store"}
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        return PlainTextResponse(text, status, headers)

    @router.api_route("/audio/{name}", methods=["GET", "HEAD"])
    async def audio(request: Request, name: str) -> Response:
        """The file, or the part of it that is asked for."""
        audio_id = name.removesuffix(_SUFFIX)
        sender = sender_of(request.scope)
        content = cache.held(audio_id)
        outcome = "memory"
        if content is None:
            if seconds := misses.limited(sender):
                return refused("limited", 429, "Too many unknown files.", int(seconds) + 1)
            outcome = "store"
            if name.endswith(_SUFFIX) and AUDIO_ID.fullmatch(audio_id):
                try:
                    content = await cache.get(audio_id)
                except UnavailableError:
                    return refused("unavailable", 503, "Audio can't be read now.", 1)
        if content is None or not name.endswith(_SUFFIX):
            misses.failed(sender)
            return refused("missing", 404, "There is no such file.")
        requests.labels(outcome).inc()
        return _answer(request, audio_id, content)

    return router


def _answer(request: Request, audio_id: str, content: bytes) -> Response:
    """By RFC 9110, sections 13 and 14."""
    etag = f'"{audio_id}"'
    headers = {
        "etag": etag,
        "cache-control": "public, max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "content-type": "audio/mpeg",
        "x-content-type-options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match", ""), etag):
        del headers["content-type"]
        return Response(status_code=304, headers=headers)
    status = 200
    wanted = request.headers.get("range", "")
    if wanted and request.method == "GET" and request.headers.get("if-range", etag) == etag:
        part = _part(wanted, len(content))
        if part is not None:
            if not part:
                headers["content-range"] = f"bytes */{len(content)}"
                del headers["content-type"]
                return Response(status_code=416, headers=headers)
            headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
            content = content[part.start : part.stop]
            status = 206
    headers["content-length"] = str(len(content))
    return Response(b"" if request.method == "HEAD" else content, status, headers)


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _part(wanted: str, size: int) -> range | None:
    """The one range that is asked for, empty when the file has nothing there.

    None when it is several, or of a kind we don't know: then all of it may be sent.
    """
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or wanted.strip() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
