"""`switchboard.messaging.v1.MessagingService`."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc.aio
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1 import messaging_service_pb2_grpc as rpc

from services.common.errors import InvalidInputError, NotFoundError, OverloadedError
from services.messaging.domain.message import Template
from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api.conversations import conversation_to_proto
from services.messaging.grpc_api.messages import event_to_proto, message_to_proto
from services.messaging.grpc_api.requests import message_filter, page_limit, question, required_id
from services.messaging.grpc_api.status import provider_to_proto, queues_to_proto
from services.messaging.grpc_api.tokens import (
    decode_cursor,
    decode_page_token,
    encode_cursor,
    encode_page_token,
)
from services.messaging.ports.media import MediaStore
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.ports.reading import ConversationStore, MessageReader
from services.messaging.usecases.send import SendMessage
from services.messaging.usecases.watch import Watch

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["MessagingService"].full_name
_CHUNK_BYTES = 64 * 1024
# Each is in memory for as long as its reader takes.
_MAX_OPEN_FILES = 32


class MessagingServicer(rpc.MessagingServiceServicer):
    """Turns calls into use cases; errors are the interceptor's.

    Args:
        providers: The status of the provider in use, and then of its fallback, if there is one.
    """

    def __init__(
        self,
        send: SendMessage,
        *,
        reader: MessageReader,
        conversations: ConversationStore,
        watch: Watch,
        addresses: ContactAddresses,
        providers: Callable[[], Sequence[ProviderStatus]],
        media: MediaStore,
    ) -> None:
        self._send = send
        self._reader = reader
        self._conversations = conversations
        self._watch = watch
        self._media = media
        self._addresses = addresses
        self._providers = providers
        self._open_files = 0

    async def SendMessage(  # noqa: N802 - The name is the contract's.
        self, request: pb.SendMessageRequest, context: Context
    ) -> pb.SendMessageResponse:
        template = None
        if request.HasField("template"):
            template = Template(request.template.id, dict(request.template.variables))
        message = await self._send(
            to=request.to,
            body=request.body,
            media_url=request.media_url or None,
            template=template,
            reply_to_message_id=request.reply_to_message_id or None,
            from_person=request.from_person,
            request_id=request.request_id or None,
        )
        return pb.SendMessageResponse(message=message_to_proto(message))

    async def GetMessage(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetMessageRequest, context: Context
    ) -> pb.GetMessageResponse:
        message = await self._reader.message(required_id(request.id, "id"))
        if message is None:
            raise NotFoundError("id: there is no message with this id")
        events = await self._reader.history(message.id) if request.include_events else ()
        return pb.GetMessageResponse(
            message=message_to_proto(message), events=[event_to_proto(event) for event in events]
        )

    async def ListMessages(  # noqa: N802 - The name is the contract's.
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        wanted = message_filter(request, self._addresses)
        binding = question(wanted)
        page = await self._reader.messages(
            wanted,
            limit=page_limit(request.page_size),
            after=decode_page_token(request.page_token, *binding),
        )
        following = page.following
        return pb.ListMessagesResponse(
            messages=[message_to_proto(message) for message in page.messages],
            next_page_token=encode_page_token(following, *binding) if following else "",
        )

    async def WatchMessages(  # noqa: N802 - The name is the contract's.
        self, request: pb.WatchMessagesRequest, context: Context
    ) -> AsyncIterator[pb.WatchMessagesResponse]:
        contact = None
        if request.contact_address:
            contact = self._addresses.identity(request.contact_address, field="contact_address")
        events = self._watch.events(decode_cursor(request.cursor), contact)
        async with contextlib.aclosing(events):
            async for watched in events:
                change = watched.change
                yield pb.WatchMessagesResponse(
                    event=event_to_proto(change.event) if change else None,
                    message=message_to_proto(change.message) if change else None,
                    cursor=encode_cursor(watched.position),
                )

    async def GetMedia(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetMediaRequest, context: Context
    ) -> AsyncIterator[pb.GetMediaResponse]:
        if self._open_files >= _MAX_OPEN_FILES:
            raise OverloadedError("too many files are being read at once, try again shortly")
        self._open_files += 1
        try:
            file = await self._media.read(required_id(request.id, "id"))
            if file is None:
                raise NotFoundError("id: there is no stored file with this id")
            size = len(file.content)
            yield pb.GetMediaResponse(
                content_type=file.content_type, size_bytes=size, data=file.content[:_CHUNK_BYTES]
            )
            for start in range(_CHUNK_BYTES, size, _CHUNK_BYTES):
                yield pb.GetMediaResponse(data=file.content[start : start + _CHUNK_BYTES])
        finally:
            self._open_files -= 1

    async def ListConversations(  # noqa: N802 - The name is the contract's.
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        page = await self._conversations.conversations(
            limit=page_limit(request.page_size),
            after=decode_page_token(request.page_token, "conversations"),
        )
        following = page.following
        return pb.ListConversationsResponse(
            conversations=[conversation_to_proto(one) for one in page.conversations],
            next_page_token=encode_page_token(following, "conversations") if following else "",
        )

    async def GetConversation(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetConversationRequest, context: Context
    ) -> pb.GetConversationResponse:
        match request.WhichOneof("key"):
            case "id":
                conversation = await self._conversations.conversation(required_id(request.id, "id"))
            case "contact_address":
                conversation = await self._conversations.conversation_with(
                    self._addresses.identity(request.contact_address, field="contact_address")
                )
            case None:
                raise InvalidInputError("key", "is missing: give an id or a contact_address")
        return pb.GetConversationResponse(conversation=conversation_to_proto(conversation))

    async def MarkConversationRead(  # noqa: N802 - The name is the contract's.
        self, request: pb.MarkConversationReadRequest, context: Context
    ) -> pb.MarkConversationReadResponse:
        conversation = await self._conversations.mark_read(
            required_id(request.conversation_id, "conversation_id"),
            request.up_to_message_id or None,
        )
        return pb.MarkConversationReadResponse(conversation=conversation_to_proto(conversation))

    async def PauseAssistant(  # noqa: N802 - The name is the contract's.
        self, request: pb.PauseAssistantRequest, context: Context
    ) -> pb.PauseAssistantResponse:
        conversation = await self._conversations.pause_assistant(
            required_id(request.conversation_id, "conversation_id")
        )
        return pb.PauseAssistantResponse(conversation=conversation_to_proto(conversation))

    async def ResumeAssistant(  # noqa: N802 - The name is the contract's.
        self, request: pb.ResumeAssistantRequest, context: Context
    ) -> pb.ResumeAssistantResponse:
        conversation = await self._conversations.resume_assistant(
            required_id(request.conversation_id, "conversation_id")
        )
        return pb.ResumeAssistantResponse(conversation=conversation_to_proto(conversation))

    async def GetStatus(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        provider, *fallbacks = self._providers()
        return pb.GetStatusResponse(
            provider=provider_to_proto(provider),
            fallback=provider_to_proto(fallbacks[0]) if fallbacks else None,
            queues=queues_to_proto(await self._reader.queue_sizes()),
        )
