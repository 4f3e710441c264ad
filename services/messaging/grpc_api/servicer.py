"""`switchboard.messaging.v1.MessagingService`."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1 import messaging_service_pb2_grpc as rpc

from services.common.errors import InvalidInputError, NotFoundError
from services.messaging.domain.contact import whatsapp_identity
from services.messaging.grpc_api.messages import message_to_proto
from services.messaging.grpc_api.page_tokens import decode_page_token, encode_page_token
from services.messaging.ports.reading import MessageReader
from services.messaging.usecases.send import SendMessage

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["MessagingService"].full_name
_DEFAULT_PAGE = 50
_MAX_PAGE = 200


class MessagingServicer(rpc.MessagingServiceServicer):
    """Turns calls into use cases; errors are the interceptor's."""

    def __init__(self, send: SendMessage, reader: MessageReader) -> None:
        self._send = send
        self._reader = reader

    async def SendMessage(  # noqa: N802 - The name is the contract's.
        self, request: pb.SendMessageRequest, context: Context
    ) -> pb.SendMessageResponse:
        message = await self._send(
            to=request.to, body=request.body, request_id=request.request_id or None
        )
        return pb.SendMessageResponse(message=message_to_proto(message))

    async def GetMessage(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetMessageRequest, context: Context
    ) -> pb.GetMessageResponse:
        if not request.id:
            raise InvalidInputError("id", "is empty; it is the `id` of a message")
        message = None if "\0" in request.id else await self._reader.message(request.id)
        if message is None:
            raise NotFoundError("id: there is no message with this id")
        return pb.GetMessageResponse(message=message_to_proto(message))

    async def ListMessages(  # noqa: N802 - The name is the contract's.
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        if request.page_size < 0:
            raise InvalidInputError("page_size", "is negative")
        contact = None
        if request.contact_address:
            contact = whatsapp_identity(request.contact_address)
            if contact is None:
                raise InvalidInputError(
                    "contact_address", "must be a number in E.164, such as whatsapp:+15551234567"
                )
        question = contact.value if contact else ""
        page = await self._reader.messages(
            limit=min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE),
            before=decode_page_token(request.page_token, question),
            contact=contact,
        )
        following = page.next_before
        return pb.ListMessagesResponse(
            messages=[message_to_proto(message) for message in page.messages],
            next_page_token="" if following is None else encode_page_token(following, question),
        )

    async def ListConversations(  # noqa: N802 - The name is the contract's.
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def GetConversation(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetConversationRequest, context: Context
    ) -> pb.GetConversationResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def MarkConversationRead(  # noqa: N802 - The name is the contract's.
        self, request: pb.MarkConversationReadRequest, context: Context
    ) -> pb.MarkConversationReadResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def PauseAssistant(  # noqa: N802 - The name is the contract's.
        self, request: pb.PauseAssistantRequest, context: Context
    ) -> pb.PauseAssistantResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def ResumeAssistant(  # noqa: N802 - The name is the contract's.
        self, request: pb.ResumeAssistantRequest, context: Context
    ) -> pb.ResumeAssistantResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def GetStatus(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    async def WatchMessages(  # noqa: N802 - The name is the contract's.
        self, request: pb.WatchMessagesRequest, context: Context
    ) -> AsyncIterator[pb.WatchMessagesResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")
        yield pb.WatchMessagesResponse()

    async def GetMedia(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetMediaRequest, context: Context
    ) -> AsyncIterator[pb.GetMediaResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")
        yield pb.GetMediaResponse()
