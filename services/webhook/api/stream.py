"""What happens to messages, as server-sent events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import grpc.aio
import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.webhook.api import convert, models
from services.webhook.api.limits import HeldRequests
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import stream_answers
from services.webhook.api.requests import StreamQuery
from services.webhook.api.streaming import ClosingStream

if TYPE_CHECKING:
    WatchCall = grpc.aio.UnaryStreamCall[pb.WatchMessagesRequest, pb.WatchMessagesResponse]

log = structlog.get_logger(__name__)

_RECONNECT_MILLISECONDS = 2000
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    # A proxy must not wait for more.
    "x-accel-buffering": "no",
}


def stream_router(
    messaging: Messaging, held: HeldRequests, *, heartbeat_seconds: float
) -> APIRouter:
    """`/stream`."""
    router = APIRouter(tags=["messages"])

    @router.get(
        "/stream",
        summary="Follow messages as they change",
        response_class=Response,
        responses=stream_answers(),
    )
    async def stream_messages(
        request: Request,
        query: Annotated[StreamQuery, Query()],
        last_event_id: Annotated[
            str | None,
            Header(
                alias="Last-Event-ID",
                max_length=200,
                description="`id` of the last event seen: go on after it.",
            ),
        ] = None,
    ) -> Response:
        """Server-sent events: `data` holds the event and the message as it stands now, `id` the
        position. A client that comes back with `Last-Event-ID` misses nothing; without it the
        stream begins now. Events without `data` only move the position on.
        """
        with contextlib.ExitStack() as opened:
            opened.enter_context(held.hold(request.state.key))
            first, call = await messaging.stream(
                messaging.stub.WatchMessages,
                pb.WatchMessagesRequest(
                    cursor=last_event_id or query.cursor or "",
                    contact_address=query.contact or "",
                ),
                seconds=None,
                cursor="Last-Event-ID" if last_event_id else "cursor",
                contact_address="contact",
            )
            opened.callback(call.cancel)
            return ClosingStream(
                _events(first, call, held, heartbeat_seconds), opened.pop_all(), headers=_HEADERS
            )

    return router


async def _events(
    first: pb.WatchMessagesResponse, call: "WatchCall", held: HeldRequests, heartbeat_seconds: float
) -> AsyncIterator[bytes]:
    yield format_sse_event(id=first.cursor, retry=_RECONNECT_MILLISECONDS)
    if first.HasField("event"):
        yield _event(first)
    reading: asyncio.Future[object] | None = None
    try:
        while True:
            reading = reading or asyncio.ensure_future(call.read())
            if await held.pause(heartbeat_seconds, reading):
                return
            if not reading.done():
                yield format_sse_event(comment="still here")
                continue
            response, reading = reading.result(), None
            if not isinstance(response, pb.WatchMessagesResponse):
                return  # The client comes back with the position it has.
            yield _event(response)
    except grpc.aio.AioRpcError as error:
        log.info("a stream ended", code=error.code().name)
    finally:
        if reading is not None:
            reading.cancel()


def _event(response: pb.WatchMessagesResponse) -> bytes:
    if not response.HasField("event"):
        return format_sse_event(id=response.cursor)
    event = models.StreamEvent(
        event=convert.event(response.event), message=convert.message(response.message)
    )
    return format_sse_event(data_str=event.model_dump_json(), id=response.cursor)
