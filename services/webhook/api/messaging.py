"""Calls to messaging, with deadlines, whose errors are problem documents."""

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar, cast

import grpc.aio
from switchboard.messaging.v1.messaging_service_pb2 import SendMessageRequest
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceStub

from services.webhook.api.problems import (
    ProblemError,
    internal_problem,
    lost_on_the_way,
    raise_problem,
)

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub
    from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceAsyncStub

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

# What the API calls fields of messaging's requests, where that differs.
_NAMES = {
    "from_person": "author",
    "page_size": "limit",
    "page_token": "cursor",
    "reply_to_message_id": "reply_to",
    "request_id": "Idempotency-Key",
    "up_to_message_id": "up_to",
}


_AGAIN_SECONDS = 0.1
"""By then the channel knows which replicas are there."""


def _repeatable(request: object) -> bool:
    """Whether asking twice is as good as once: of what is sent only under a key."""
    return not isinstance(request, SendMessageRequest) or bool(request.request_id)


class Messaging:
    """The service that owns all messages and calls.

    Args:
        call_seconds: Deadline of a call, and of a stream's first response.
    """

    def __init__(self, channel: grpc.aio.Channel, *, call_seconds: float = 8.0) -> None:
        self.stub: MessagingServiceAsyncStub = MessagingServiceStub(channel)
        self.voice: VoiceServiceAsyncStub = VoiceServiceStub(channel)
        self._call_seconds = call_seconds

    async def call(
        self,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]",
        request: RequestT,
        **fields: str,
    ) -> ResponseT:
        """One response.

        Asked again, once, when the answer was lost and asking twice does no harm: a replica that
        is stopping cancels what comes in the same moment, and one that dies breaks off what it had
        begun.

        Args:
            fields: What this operation calls fields of `request`.

        Raises:
            ProblemError: Messaging refused it, can't be reached or didn't answer in time.
        """
        began = time.monotonic()
        try:
            try:
                return await rpc(request, timeout=self._call_seconds)
            except grpc.aio.AioRpcError as error:
                left = self._call_seconds - (time.monotonic() - began)
                if not lost_on_the_way(error) or not _repeatable(request) or left < _AGAIN_SECONDS:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
                return await rpc(request, timeout=left - _AGAIN_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise_problem(error, {**_NAMES, **fields})

    async def stream(
        self,
        rpc: "grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT]",
        request: RequestT,
        *,
        seconds: float | None,
        **fields: str,
    ) -> "tuple[ResponseT, grpc.aio.UnaryStreamCall[RequestT, ResponseT]]":
        """The first response, and the call to read on from; whoever gets it must cancel it.

        Args:
            seconds: Deadline of the whole stream; None when it has no end.
            fields: What this operation calls fields of `request`.

        Raises:
            ProblemError: Messaging refused it, can't be reached or didn't begin in time.
        """
        call = rpc(request, timeout=seconds)
        try:
            async with asyncio.timeout(self._call_seconds):
                first = await call.read()
        except grpc.aio.AioRpcError as error:
            raise_problem(error, {**_NAMES, **fields})
        except TimeoutError:
            call.cancel()
            raise ProblemError(
                504, "DEADLINE_EXCEEDED", "messaging didn't answer in time."
            ) from None
        except BaseException:
            call.cancel()
            raise
        if first is grpc.aio.EOF:
            raise internal_problem()
        return cast(ResponseT, first), call
