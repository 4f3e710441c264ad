"""Files that came with messages."""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.head_requests import is_head
from services.webhook.api.limits import HeldRequests
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import media_answers
from services.webhook.api.streaming import ClosingStream

if TYPE_CHECKING:
    import grpc.aio

    MediaCall = grpc.aio.UnaryStreamCall[pb.GetMediaRequest, pb.GetMediaResponse]

_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_INLINE = ("image/", "audio/", "video/")
_SECONDS = 300.0


def media_router(messaging: Messaging, held: HeldRequests) -> APIRouter:
    """`/media/{id}`."""
    router = APIRouter(tags=["media"])

    @router.get(
        "/media/{id}",
        summary="Get a file",
        response_class=Response,
        responses=media_answers(),
    )
    async def get_media(
        request: Request,
        id_: Annotated[str, Path(alias="id", max_length=200)],
        if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
    ) -> Response:
        """The stored copy of a message's file, as the provider gave it out."""
        with contextlib.ExitStack() as opened:
            opened.enter_context(held.hold(request.state.key))
            # Whoever reads slowly has messaging keep a file in memory for as long.
            reading = opened.enter_context(contextlib.ExitStack())
            reading.enter_context(held.hold_download(request.state.key))
            first, call = await messaging.stream(
                messaging.stub.GetMedia, pb.GetMediaRequest(id=id_), seconds=_SECONDS
            )
            reading.callback(call.cancel)
            headers = _headers(id_, first.content_type)
            if if_none_match is not None and headers["etag"] in if_none_match:
                return Response(status_code=304, headers=headers)
            headers["content-length"] = str(first.size_bytes)
            if is_head(request.scope):
                return Response(headers=headers)
            return ClosingStream(_parts(first, call, reading), opened.pop_all(), headers=headers)

    return router


def _headers(id_: str, content_type: str) -> dict[str, str]:
    """A file is whatever its sender made it, so nothing in it may run."""
    kind = content_type.partition(";")[0].strip().lower()
    if not _CONTENT_TYPE.fullmatch(kind):
        kind = "application/octet-stream"
    # An SVG is an image that may hold scripts.
    inline = kind.startswith(_INLINE) and kind != "image/svg+xml"
    return {
        "content-type": kind,
        "content-disposition": "inline" if inline else "attachment",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, max-age=31536000, immutable",
        "etag": f'"{id_}"',
    }


async def _parts(
    first: pb.GetMediaResponse, call: "MediaCall", reading: contextlib.ExitStack
) -> AsyncIterator[bytes]:
    """The file's parts; `reading` is closed before the last.

    Who has that part may ask for the next file at once, sooner than we hear of it.
    """
    part = first
    while isinstance(following := await call.read(), pb.GetMediaResponse):
        yield part.data
        part = following
    reading.close()
    yield part.data
