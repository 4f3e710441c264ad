"""The REST API on a real socket, and a pretend messaging behind it that speaks real gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry
from switchboard.messaging.v1 import conversation_pb2, message_pb2, provider_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1 import messaging_service_pb2_grpc as rpc
from switchboard.voice.v1 import voice_service_pb2_grpc as voice_rpc

from services.common.errors import NotFoundError, SwitchboardError
from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.common.http_server import serving_http
from services.webhook.api.app import build_api
from services.webhook.api.keys import ApiKeys
from services.webhook.api.limits import HeldRequests
from services.webhook.api.messaging import Messaging
from tests.support.voice import PretendVoice

KEY = "a-key-for-tests"
OTHER_KEY = "another-key-for-tests"
GRPC_TOKEN = "grpc-token"
CONTACT = "whatsapp:+972501234567"
_NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


def timestamp(time: datetime = _NOW) -> Timestamp:
    """A moment for the contract."""
    found = Timestamp()
    found.FromDatetime(time)
    return found


def message(id_: str = "m-1", **more: Any) -> message_pb2.Message:
    """A message on its way."""
    members: dict[str, Any] = {
        "id": id_,
        "conversation_id": "c-1",
        "direction": message_pb2.DIRECTION_OUTBOUND,
        "status": message_pb2.MESSAGE_STATUS_QUEUED,
        "contact_address": CONTACT,
        "own_address": "whatsapp:+14155238886",
        "body": "Hello",
        "author": "api",
        "provider": "twilio",
        "created_at": timestamp(),
    }
    return message_pb2.Message(**members | more)


def conversation() -> conversation_pb2.Conversation:
    """A conversation without messages."""
    return conversation_pb2.Conversation(id="c-1", created_at=timestamp())


def event(number: int) -> pb.WatchMessagesResponse:
    """What a watcher is told; its cursor holds its number."""
    cursor = f"cursor-{number}"
    return pb.WatchMessagesResponse(
        event=message_pb2.MessageEvent(
            cursor=cursor,
            message_id="m-1",
            kind=message_pb2.MESSAGE_EVENT_KIND_QUEUED,
            occurred_at=message_pb2.SourcedTime(
                time=timestamp(), source=message_pb2.TIME_SOURCE_RECEIVED
            ),
        ),
        message=message(),
        cursor=cursor,
    )


class PretendMessaging(rpc.MessagingServiceServicer):
    """Answers as told.

    Attributes:
        requests: Everything that was asked, in order.
        error: What every call fails with, unless None.
        statuses: Where the message stands, at each look at it; the last one holds.
        happened: Events that a watcher gets; a cursor begins behind its own.
        watching: How many watch now.
        file: Type and parts of the file with the id `f-1`.
        busy_seconds: How long each call takes.
        leaving: So many calls are cancelled, as by a process that is stopping.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.error: SwitchboardError | None = None
        self.statuses = [message_pb2.MESSAGE_STATUS_QUEUED]
        self.happened: list[pb.WatchMessagesResponse] = []
        self.watching = 0
        self.file = ("image/png", [b"first", b"second"])
        self.busy_seconds = 0.0
        self.leaving = 0

    async def _asked(self, request: Any) -> None:
        self.requests.append(request)
        await asyncio.sleep(self.busy_seconds)
        if self.error is not None:
            raise self.error

    async def SendMessage(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        if self.leaving:
            self.leaving -= 1
            await context.abort(grpc.StatusCode.CANCELLED)
        return pb.SendMessageResponse(message=message(status=self.statuses[0]))

    async def GetMessage(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        if len(self.statuses) > 1:
            self.statuses.pop(0)
        return pb.GetMessageResponse(message=message(request.id, status=self.statuses[0]))

    async def ListMessages(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        return pb.ListMessagesResponse(messages=[message()], next_page_token="next")

    async def GetConversation(  # noqa: N802 - As generated.
        self, request: Any, context: Any
    ) -> Any:
        await self._asked(request)
        return pb.GetConversationResponse(conversation=conversation())

    async def MarkConversationRead(  # noqa: N802 - As generated.
        self, request: Any, context: Any
    ) -> Any:
        await self._asked(request)
        return pb.MarkConversationReadResponse(conversation=conversation())

    async def ListConversations(  # noqa: N802 - As generated.
        self, request: Any, context: Any
    ) -> Any:
        await self._asked(request)
        return pb.ListConversationsResponse(conversations=[conversation()])

    async def PauseAssistant(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        return pb.PauseAssistantResponse(conversation=conversation())

    async def ResumeAssistant(  # noqa: N802 - As generated.
        self, request: Any, context: Any
    ) -> Any:
        await self._asked(request)
        return pb.ResumeAssistantResponse(conversation=conversation())

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        return pb.GetStatusResponse(
            provider=provider_pb2.ProviderStatus(
                name="twilio", state=provider_pb2.PROVIDER_STATE_HEALTHY
            )
        )

    async def WatchMessages(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        seen = int(request.cursor.rpartition("-")[2]) if request.cursor else len(self.happened)
        self.watching += 1
        try:
            yield pb.WatchMessagesResponse(cursor=f"cursor-{seen}")
            while True:
                for response in self.happened[seen:]:
                    yield response
                    seen += 1
                await asyncio.sleep(0.01)
        finally:
            self.watching -= 1

    async def GetMedia(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        await self._asked(request)
        if request.id != "f-1":
            raise NotFoundError("id: there is no stored file with this id")
        content_type, parts = self.file
        size = sum(map(len, parts))
        yield pb.GetMediaResponse(content_type=content_type, size_bytes=size, data=parts[0])
        for part in parts[1:]:
            yield pb.GetMediaResponse(data=part)


@contextlib.asynccontextmanager
async def served(
    messaging: PretendMessaging, voice: PretendVoice | None = None, *, port: int = 0
) -> AsyncIterator[str]:
    """Serve them; yields their address."""

    def add_services(server: grpc.aio.Server) -> None:
        rpc.add_MessagingServiceServicer_to_server(messaging, server)
        voice_rpc.add_VoiceServiceServicer_to_server(voice or PretendVoice(), server)

    server = GrpcServer(
        address=f"127.0.0.1:{port}",
        tokens=[GRPC_TOKEN],
        service_names=[],
        add_services=add_services,
    )
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0)


class Api:
    """A running API.

    Attributes:
        http: A client with a good key.
        held: What `build_api` was given.
    """

    def __init__(
        self, http: httpx.AsyncClient, registry: CollectorRegistry, held: HeldRequests
    ) -> None:
        self.http = http
        self.registry = registry
        self.held = held


@contextlib.asynccontextmanager
async def running_api(
    address: str,
    *,
    token: str = GRPC_TOKEN,
    keys: tuple[tuple[str, str], ...] = (("crm", KEY), ("shop", OTHER_KEY)),
    call_seconds: float = 5.0,
    held_per_key: int = 3,
    **options: Any,
) -> AsyncIterator[Api]:
    """An API that asks the messaging at `address`."""
    registry = CollectorRegistry()
    held = HeldRequests(held_per_key)
    async with open_channel(address, token) as channel:
        app = build_api(
            messaging=Messaging(channel, call_seconds=call_seconds),
            keys=ApiKeys(keys),
            held=held,
            registry=registry,
            **options,
        )
        async with (
            serving_http(app, host="127.0.0.1", port=0, drain_seconds=30) as port,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": KEY}, timeout=30
            ) as http,
        ):
            with contextlib.closing(held):
                yield Api(http, registry, held)
