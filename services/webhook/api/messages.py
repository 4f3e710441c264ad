"""Sending messages and reading them."""

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response, params
from switchboard.messaging.v1 import message_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.webhook.api import convert, models
from services.webhook.api.examples import NEW_MESSAGES
from services.webhook.api.limits import HeldRequests
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import answers
from services.webhook.api.requests import IDEMPOTENCY_KEY, MessagesQuery, NewMessage, SendQuery

_UNSETTLED = (message_pb2.MESSAGE_STATUS_QUEUED, message_pb2.MESSAGE_STATUS_SENDING)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


def messages_router(messaging: Messaging, held: HeldRequests, turn: params.Depends) -> APIRouter:
    """`/send` and `/messages`.

    Args:
        turn: Of what is answered with many messages or events.
    """
    router = APIRouter(tags=["messages"])

    @router.post(
        "/send",
        status_code=202,
        summary="Send a message",
        responses=answers(202, 404, 409, 422, 424, location=True),
    )
    async def send_message(
        request: Request,
        response: Response,
        new: Annotated[NewMessage, Body(openapi_examples=NEW_MESSAGES)],
        query: Annotated[SendQuery, Query()],
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                pattern=IDEMPOTENCY_KEY,
                description=(
                    "Unique for this message. The same key with the same body gives the same"
                    " message for ever and sends nothing again; with another body it is refused"
                    " with 422. It belongs to the name of the API key."
                ),
                examples=["visit-17"],
            ),
        ] = None,
    ) -> models.Message:
        """Stores a message and answers at once; sending goes on in the background.

        Outside the 24-hour window after the contact's last message only a template may be sent.
        """
        key = request.state.key
        with held.hold(key) if query.wait else contextlib.nullcontext():
            sent = await messaging.call(
                messaging.stub.SendMessage,
                _to_proto(new, f"rest:{key}:{idempotency_key}" if idempotency_key else ""),
            )
            message = sent.message
            if query.wait:
                message = await _settled(messaging, held, message, query.wait)
        response.headers["location"] = f"/api/whatsapp/messages/{message.id}"
        return convert.message(message)

    @router.get(
        "/messages",
        summary="List messages",
        responses=answers(200),
        dependencies=[turn],
    )
    async def list_messages(query: Annotated[MessagesQuery, Query()]) -> models.MessagePage:
        """Newest first. No message is skipped or repeated between pages while new ones arrive.

        Where texts are long a page has fewer than `limit`.
        """
        page = await messaging.call(
            messaging.stub.ListMessages,
            pb.ListMessagesRequest(
                page_size=query.limit,
                page_token=query.cursor or "",
                contact_address=query.contact or "",
                status=message_pb2.MessageStatus.Value(f"MESSAGE_STATUS_{query.status.upper()}")
                if query.status
                else message_pb2.MESSAGE_STATUS_UNSPECIFIED,
                direction=message_pb2.Direction.Value(f"DIRECTION_{query.direction.upper()}")
                if query.direction
                else message_pb2.DIRECTION_UNSPECIFIED,
                since=convert.to_timestamp(query.since),
                until=convert.to_timestamp(query.until),
            ),
            contact_address="contact",
        )
        return models.MessagePage(
            messages=[convert.message(one) for one in page.messages],
            next_cursor=page.next_page_token or None,
        )

    @router.get(
        "/messages/{id}",
        summary="Get a message with its history",
        responses=answers(200, 404),
        dependencies=[turn],
    )
    async def get_message(
        id_: Annotated[str, Path(alias="id", max_length=200)],
    ) -> models.MessageWithHistory:
        """A message, and the attempts and reports that it came to be by: the newest of them."""
        found = await messaging.call(
            messaging.stub.GetMessage, pb.GetMessageRequest(id=id_, include_events=True)
        )
        return convert.message_with_history(found)

    return router


def _to_proto(new: NewMessage, request_id: str) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(
        to=new.to,
        body=new.body,
        request_id=request_id,
        media_url=new.media_url,
        template=message_pb2.Template(id=new.template.id, variables=new.template.variables)
        if new.is_template
        else None,
        reply_to_message_id=new.reply_to,
        from_person=new.author == "person",
    )


async def _settled(
    messaging: Messaging, held: HeldRequests, message: message_pb2.Message, seconds: float
) -> message_pb2.Message:
    """The message once it is sent or failed, or as it stands after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = _FIRST_PAUSE
    while message.status in _UNSETTLED and (left := deadline - loop.time()) > 0:
        if await held.pause(min(pause, left)):
            break
        pause = min(2 * pause, _LONGEST_PAUSE)
        request = pb.GetMessageRequest(id=message.id)
        message = (await messaging.call(messaging.stub.GetMessage, request)).message
    return message
