"""Conversations, and who answers in them."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, params
from switchboard.messaging.v1 import conversation_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.webhook.api import convert, models
from services.webhook.api.examples import READ_MARKS
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import answers
from services.webhook.api.requests import Number, PageQuery, ReadMark

Phone = Annotated[Number, Path(examples=["+972501234567"])]


def conversations_router(messaging: Messaging, turn: params.Depends) -> APIRouter:
    """`/conversations` and `/conversation/{phone}`.

    Args:
        turn: Of what is answered with many messages.
    """
    router = APIRouter(tags=["conversations"])

    async def find(phone: str) -> conversation_pb2.Conversation:
        found = await messaging.call(
            messaging.stub.GetConversation,
            pb.GetConversationRequest(contact_address=phone),
            contact_address="phone",
        )
        return found.conversation

    @router.get(
        "/conversations",
        summary="List conversations",
        responses=answers(200),
        dependencies=[turn],
    )
    async def list_conversations(query: Annotated[PageQuery, Query()]) -> models.ConversationPage:
        """The conversation with the newest message first.

        One that gets a message between two pages moves to the first, and is on none that follow.
        """
        page = await messaging.call(
            messaging.stub.ListConversations,
            pb.ListConversationsRequest(page_size=query.limit, page_token=query.cursor or ""),
        )
        return models.ConversationPage(
            conversations=[convert.conversation(one) for one in page.conversations],
            next_cursor=page.next_page_token or None,
        )

    @router.get(
        "/conversation/{phone}",
        summary="Get a conversation with its messages",
        responses=answers(200, 404),
        dependencies=[turn],
    )
    async def get_conversation(
        phone: Phone, query: Annotated[PageQuery, Query()]
    ) -> models.ConversationWithMessages:
        """The conversation with one contact, and its newest messages."""
        conversation = await find(phone)
        page = await messaging.call(
            messaging.stub.ListMessages,
            pb.ListMessagesRequest(
                conversation_id=conversation.id,
                page_size=query.limit,
                page_token=query.cursor or "",
            ),
        )
        return models.ConversationWithMessages(
            conversation=convert.conversation(conversation),
            messages=[convert.message(one) for one in page.messages],
            next_cursor=page.next_page_token or None,
        )

    @router.post(
        "/conversation/{phone}/read",
        summary="Mark a conversation as read",
        responses=answers(200, 404),
    )
    async def mark_conversation_read(
        phone: Phone,
        mark: Annotated[ReadMark | None, Body(openapi_examples=READ_MARKS)] = None,
    ) -> models.Conversation:
        """Marks what the contact wrote as read by the business."""
        conversation = await find(phone)
        marked = await messaging.call(
            messaging.stub.MarkConversationRead,
            pb.MarkConversationReadRequest(
                conversation_id=conversation.id,
                up_to_message_id=mark.up_to if mark else "",
            ),
        )
        return convert.conversation(marked.conversation)

    @router.post(
        "/conversation/{phone}/pause",
        summary="Silence the assistant",
        responses=answers(200, 404),
    )
    async def pause_assistant(phone: Phone) -> models.Conversation:
        """A person takes over this conversation."""
        conversation = await find(phone)
        paused = await messaging.call(
            messaging.stub.PauseAssistant,
            pb.PauseAssistantRequest(conversation_id=conversation.id),
        )
        return convert.conversation(paused.conversation)

    @router.post(
        "/conversation/{phone}/resume",
        summary="Let the assistant answer again",
        responses=answers(200, 404),
    )
    async def resume_assistant(phone: Phone) -> models.Conversation:
        """From the contact's next message on the assistant answers."""
        conversation = await find(phone)
        resumed = await messaging.call(
            messaging.stub.ResumeAssistant,
            pb.ResumeAssistantRequest(conversation_id=conversation.id),
        )
        return convert.conversation(resumed.conversation)

    return router
