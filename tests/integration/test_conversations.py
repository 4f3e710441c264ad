"""Conversations over gRPC: reading them, marking them as read, taking over from the assistant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from sqlalchemy import event, func, select
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1.conversation_pb2 import Conversation

from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.conversation import PausedBy
from services.messaging.domain.message import Author
from services.messaging.ports.answering import ReplyTask
from services.messaging.ports.sending import NewMessage
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.pausing import conversation_key, pause
from services.messaging.store.replies import SqlReplyStore
from tests.support.grpc_api import called, details, have_written, served
from tests.support.receiving import at, inbound, phone, receive
from tests.support.sending import now, open_database

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with served(database) as server, called(server) as api:
        yield api


async def take(database: Database, *messages: InboundMessage) -> None:
    """Messages arrive, and the assistant is to answer them."""
    await receive(SqlIngestStore(database), clock=lambda: at(0))(messages, [])


async def conversation_with(api: Api, contact: int) -> Conversation:
    asked = pb.GetConversationRequest(contact_address=phone(contact))
    return (await api.GetConversation(asked)).conversation


async def waiting(database: Database) -> list[ReplyTask]:
    """What waits for the assistant, taken."""
    store = SqlReplyStore(database, lambda: at(1000))
    lease = timedelta(seconds=30)
    return list(await store.claim_replies(limit=10, lease=lease, context=5, max_answers=60))


async def test_the_newest_conversation_comes_first(api: Api, database: Database) -> None:
    """Pages show every conversation once, by the time of the newest message."""
    for number in range(5):
        await take(
            database,
            inbound(f"SM{number}", contact=number, seconds=number, body=str(number), name="Ada"),
        )
    await take(database, inbound("SM9", contact=1, seconds=60, body="last"))
    seen = []
    token = ""
    while True:
        asked = pb.ListConversationsRequest(page_size=2, page_token=token)
        page = await api.ListConversations(asked)
        seen += list(page.conversations)
        token = page.next_page_token
        if not token:
            break
    assert [one.last_message.body for one in seen] == ["last", "4", "3", "2", "0"]
    first = seen[0]
    assert first.contact.display_name == "Ada"
    assert [(one.kind, one.value) for one in first.contact.identities] == [("phone", phone(1))]
    assert first.contact_address == f"whatsapp:{phone(1)}"
    assert first.last_message_at.ToMicroseconds() == first.last_message.created_at.ToMicroseconds()
    window = first.window_closes_at.ToDatetime() - first.last_message_at.ToDatetime()
    assert window == timedelta(hours=24)
    assert first.unread_count == 2
    assert (await api.GetConversation(pb.GetConversationRequest(id=first.id))).conversation == first


async def test_a_conversation_that_moves_to_the_front_is_found_there(
    api: Api, database: Database
) -> None:
    """Its contact wrote between two pages: the later ones lack it, and the first one read again
    has it."""
    await take(database, *(inbound(f"SM{n}", contact=n, seconds=n) for n in range(4)))
    first = await api.ListConversations(pb.ListConversationsRequest(page_size=2))
    await take(database, inbound("SM9", contact=0, seconds=60))
    following = pb.ListConversationsRequest(page_size=2, page_token=first.next_page_token)
    second = await api.ListConversations(following)
    assert not second.next_page_token
    seen = {one.contact_address for page in (first, second) for one in page.conversations}
    assert seen == {f"whatsapp:{phone(n)}" for n in (3, 2, 1)}
    again = await api.ListConversations(pb.ListConversationsRequest(page_size=2))
    assert again.conversations[0].contact_address == f"whatsapp:{phone(0)}"
    assert again.conversations[1].contact_address in seen


async def test_a_page_takes_few_queries(api: Api, database: Database) -> None:
    """The number of queries doesn't grow with the number of conversations."""
    statements: list[str] = []
    event.listen(
        database._engine.sync_engine,
        "after_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    counts = []
    for number in (1, 20):
        await take(database, *(inbound(f"{number}-{n}", contact=n) for n in range(number)))
        statements.clear()
        await api.ListConversations(pb.ListConversationsRequest())
        counts.append(len(statements))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "spelling",
    [
        "050-000-0001",
        "+972 50 000 0001",
        "00972500000001",
        "whatsapp:+972500000001",
        "\u202a+972\u00a050\u2011000\u20110001\u202c",
    ],
)
async def test_a_conversation_is_found_by_any_spelling(
    api: Api, database: Database, spelling: str
) -> None:
    """Whoever writes a number as people do finds its conversation."""
    await take(database, inbound("SM1", contact=1))
    asked = pb.GetConversationRequest(contact_address=spelling)
    found = (await api.GetConversation(asked)).conversation
    assert found.contact_address == f"whatsapp:{phone(1)}"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.GetConversationRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.GetConversationRequest(id=""), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.GetConversationRequest(contact_address="x"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.GetConversationRequest(contact_address=phone(9)), grpc.StatusCode.NOT_FOUND),
        (pb.GetConversationRequest(id="0" * 32), grpc.StatusCode.NOT_FOUND),
        (pb.GetConversationRequest(id="\0"), grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_a_conversation_that_is_not_there(
    api: Api, request_: pb.GetConversationRequest, code: grpc.StatusCode
) -> None:
    """What can't be read is refused, and what can but isn't there is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.GetConversation(request_)
    assert raised.value.code() is code


async def test_reading_counts_down(api: Api, database: Database) -> None:
    """Marking up to a message leaves what came after it; marking again takes nothing back."""
    for number in range(4):
        await take(database, inbound(f"SM{number}", contact=1, seconds=number, body=str(number)))
    conversation = await conversation_with(api, 1)
    listed = (await api.ListMessages(pb.ListMessagesRequest())).messages
    ids = {message.body: message.id for message in listed}

    async def mark(up_to: str) -> int:
        asked = pb.MarkConversationReadRequest(
            conversation_id=conversation.id, up_to_message_id=ids.get(up_to, up_to)
        )
        return (await api.MarkConversationRead(asked)).conversation.unread_count

    assert conversation.unread_count == 4
    assert await mark("1") == 2
    assert await mark("0") == 2
    assert await mark("2") == 1
    assert await mark("") == 0
    await take(database, inbound("SM4", contact=1, seconds=4))
    assert (await conversation_with(api, 1)).unread_count == 1
    # It was written earlier, but nobody can have seen it.
    await take(database, inbound("SM5", contact=1, seconds=-1))
    assert (await conversation_with(api, 1)).unread_count == 2
    await take(database, inbound("other", contact=2))
    [other] = (await api.ListMessages(pb.ListMessagesRequest(contact_address=phone(2)))).messages
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mark(other.id)
    assert details(raised.value)["ErrorInfo"].metadata["field"] == "up_to_message_id"


async def test_nothing_arrives_unnoticed_while_somebody_reads(
    api: Api, database_url: str, database: Database
) -> None:
    """However marking and arriving interleave, what came after the last mark is counted."""
    await take(database, inbound("first", contact=1))
    conversation = await conversation_with(api, 1)

    async def arrive(start: int) -> None:
        async with open_database(database_url) as own:
            for number in range(start, start + 15):
                await take(own, inbound(f"SM{number}", contact=1, seconds=number))

    async def read() -> None:
        for _ in range(15):
            await api.MarkConversationRead(
                pb.MarkConversationReadRequest(conversation_id=conversation.id)
            )

    await asyncio.gather(arrive(0), arrive(100), read())
    async with database.read() as connection:
        row = (
            await connection.execute(
                select(ConversationRow.read_up_to_id, ConversationRow.unread_count)
            )
        ).one()
        read_at = await connection.scalar(
            select(MessageRow.created_at).where(MessageRow.id == row.read_up_to_id)
        )
        later = await connection.scalar(select(func.count()).where(MessageRow.created_at > read_at))
    assert later is not None
    assert later <= row.unread_count <= 31
    asked = pb.MarkConversationReadRequest(conversation_id=conversation.id)
    assert (await api.MarkConversationRead(asked)).conversation.unread_count == 0


async def test_a_pause_silences_the_assistant(api: Api, database: Database) -> None:
    """While paused nothing waits for the assistant; afterwards the next message does."""
    await take(database, inbound("SM1", contact=1))
    id_ = (await conversation_with(api, 1)).id
    paused = (await api.PauseAssistant(pb.PauseAssistantRequest(conversation_id=id_))).conversation
    assert paused.HasField("assistant_paused_at")
    assert paused.assistant_paused_by == "api"
    again = await api.PauseAssistant(pb.PauseAssistantRequest(conversation_id=id_))
    assert again.conversation == paused
    assert await waiting(database) == []
    await take(database, inbound("SM2", contact=1, seconds=1), inbound("SM3", contact=2))
    assert [task.recipient.value for task in await waiting(database)] == [phone(2)]
    resumed = await api.ResumeAssistant(pb.ResumeAssistantRequest(conversation_id=id_))
    assert not resumed.conversation.HasField("assistant_paused_at")
    assert resumed.conversation.assistant_paused_by == ""
    assert await waiting(database) == []
    await take(database, inbound("SM4", contact=1, seconds=2))
    assert [task.recipient.value for task in await waiting(database)] == [phone(1)]


async def test_an_answer_in_the_making_is_dropped_by_a_pause(api: Api, database: Database) -> None:
    """An answer that was being written when a person took over is not sent."""
    await have_written(database, 1)
    message = replace(inbound("SM1", contact=1), received_at=now())
    await receive(SqlIngestStore(database), clock=now)([message], [])
    store = SqlReplyStore(database, lambda: now() + timedelta(minutes=1))
    [task] = await store.claim_replies(
        limit=1, lease=timedelta(seconds=30), context=5, max_answers=60
    )
    id_ = (await conversation_with(api, 1)).id
    async with database.write() as connection:
        key = await conversation_key(connection, id_)
        await pause(connection, key, PausedBy.PERSON, now())
    answer = NewMessage(
        recipient=task.recipient,
        contact_address=task.contact_address,
        own_address=task.own_address,
        provider="twilio",
        author=Author.ASSISTANT,
        body="Too late",
    )
    assert await store.answer(task, answer) is None
    conversation = await conversation_with(api, 1)
    assert conversation.assistant_paused_by == "person"
    assert conversation.last_message.body == "Hello"


@pytest.mark.parametrize("id_", ["", "0" * 32, "' OR 1=1 --", "\0"])
async def test_actions_need_a_conversation(api: Api, id_: str) -> None:
    """An id that is missing is INVALID_ARGUMENT, one that leads nowhere NOT_FOUND."""
    expected = grpc.StatusCode.NOT_FOUND if id_ else grpc.StatusCode.INVALID_ARGUMENT
    for call in (
        api.MarkConversationRead(pb.MarkConversationReadRequest(conversation_id=id_)),
        api.PauseAssistant(pb.PauseAssistantRequest(conversation_id=id_)),
        api.ResumeAssistant(pb.ResumeAssistantRequest(conversation_id=id_)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is expected
