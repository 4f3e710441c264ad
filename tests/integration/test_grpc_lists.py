"""Lists of messages and single messages over gRPC, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import insert, select, update
from switchboard.messaging.v1 import message_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.messaging.domain.message import MessageStatus
from services.messaging.store.contact_models import ConversationAliasRow, ConversationRow
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import Party
from tests.support.grpc_api import called, details, served
from tests.support.receiving import at, inbound, phone, receive, report
from tests.support.sending import now

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with served(database) as server, called(server) as api:
        yield api


async def take(database: Database, *messages: Any) -> None:
    await receive(SqlIngestStore(database), clock=now, replies=None)(messages, [])


async def everything(api: Api, request: pb.ListMessagesRequest) -> list[str]:
    """The bodies of all pages."""
    asked = pb.ListMessagesRequest()
    asked.CopyFrom(request)
    bodies: list[str] = []
    while True:
        page = await api.ListMessages(asked)
        assert len(page.messages) <= (asked.page_size or 50)
        bodies += [message.body for message in page.messages]
        if not page.next_page_token:
            return bodies
        asked.page_token = page.next_page_token


def stamp(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(at(seconds))
    return time


async def refusal(api: Api, request: pb.ListMessagesRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.ListMessages(request)
    return raised.value


async def test_pages_neither_skip_nor_repeat_while_messages_arrive(
    api: Api, database: Database
) -> None:
    """Paging from newest to oldest shows each message of the beginning once."""
    for number in range(7):
        await take(database, inbound(f"SM{number}", contact=number, body=str(number)))
    seen: list[str] = []
    token = ""
    while True:
        page = await api.ListMessages(pb.ListMessagesRequest(page_size=3, page_token=token))
        seen += [message.body for message in page.messages]
        token = page.next_page_token
        if not token:
            break
        await take(database, inbound(f"new{len(seen)}", seconds=len(seen), body="new"))
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_messages_of_one_moment_are_all_shown(api: Api, database: Database) -> None:
    """Pages may end anywhere among messages of the same time."""
    await take(database, *(inbound(f"SM{n}", contact=n % 2, body=str(n)) for n in range(9)))
    for size in (1, 2, 4):
        bodies = await everything(api, pb.ListMessagesRequest(page_size=size))
        assert sorted(bodies) == [str(n) for n in range(9)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "9876543210"),
        ({"contact_address": "050-000-0001"}, "741"),
        ({"contact_address": "050-000-0009"}, ""),
        ({"since": stamp(4)}, "987654"),
        ({"until": stamp(4)}, "3210"),
        ({"since": stamp(2), "until": stamp(5)}, "432"),
        ({"direction": message_pb2.DIRECTION_INBOUND}, "98762"),
        ({"direction": message_pb2.DIRECTION_OUTBOUND}, "54310"),
        ({"status": message_pb2.MESSAGE_STATUS_READ}, "40"),
        ({"status": message_pb2.MESSAGE_STATUS_UNDELIVERED}, ""),
        ({"status": message_pb2.MESSAGE_STATUS_RECEIVED, "since": stamp(7)}, "987"),
        (
            {
                "status": message_pb2.MESSAGE_STATUS_READ,
                "direction": message_pb2.DIRECTION_OUTBOUND,
            },
            "40",
        ),
        (
            {
                "status": message_pb2.MESSAGE_STATUS_READ,
                "direction": message_pb2.DIRECTION_INBOUND,
            },
            "",
        ),
        (
            {
                "contact_address": "+972 50 000 0001",
                "direction": message_pb2.DIRECTION_OUTBOUND,
                "until": stamp(4),
            },
            "1",
        ),
    ],
)
async def test_filters_narrow_a_list(
    api: Api, database: Database, filters: Mapping[str, Any], expected: str
) -> None:
    """Each filter, and several at once, leave exactly what they say, whatever the page's size."""
    outbound = {0: "read", 1: "failed", 3: "sent", 4: "read", 5: "queued"}
    for number in range(10):
        message = inbound(f"SM{number}", contact=number % 3, seconds=number, body=str(number))
        await take(database, message)
    async with database.write() as connection:
        for number, status in outbound.items():
            await connection.execute(
                update(MessageRow)
                .where(MessageRow.provider_message_id == f"SM{number}")
                .values(direction="outbound", status=status)
            )
    for size in (1, 3, 50):
        asked = pb.ListMessagesRequest(page_size=size, **filters)
        assert "".join(await everything(api, asked)) == expected


async def test_a_contact_with_several_conversations_has_one_list(
    api: Api, database: Database
) -> None:
    """What was said with any of our addresses is one list, in the order of time."""
    for number in range(6):
        message = inbound(f"SM{number}", contact=1, seconds=number, body=str(number))
        await take(database, replace(message, own_address=f"whatsapp:+1415523888{number % 3}"))
    for size in (1, 4, 50):
        asked = pb.ListMessagesRequest(page_size=size, contact_address=phone(1))
        assert "".join(await everything(api, asked)) == "543210"
    asked.conversation_id = (await api.ListMessages(asked)).messages[0].conversation_id
    assert await everything(api, asked) == ["5", "2"]
    asked.contact_address = phone(2)
    assert await everything(api, asked) == []


async def test_a_conversation_is_found_by_its_earlier_id(api: Api, database: Database) -> None:
    """The id of a conversation that was merged into another leads there."""
    await take(database, inbound("SM1", body="1"))
    async with database.write() as connection:
        row_id = await connection.scalar(select(ConversationRow.id))
        await connection.execute(
            insert(ConversationAliasRow).values(public_id="earlier", conversation_id=row_id)
        )
    assert await everything(api, pb.ListMessagesRequest(conversation_id="earlier")) == ["1"]
    conversation = (await api.GetConversation(pb.GetConversationRequest(id="earlier"))).conversation
    assert conversation.last_message.body == "1"


@pytest.mark.parametrize("id_", ["0" * 32, "' OR 1=1 --", "\0", "x" * 100_000])
async def test_an_unknown_conversation_is_not_found(api: Api, id_: str) -> None:
    """A list of a conversation that doesn't exist is an error, not an empty list."""
    error = await refusal(api, pb.ListMessagesRequest(conversation_id=id_))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "other",
    [
        {"contact_address": phone(2)},
        {"status": message_pb2.MESSAGE_STATUS_RECEIVED},
        {"direction": message_pb2.DIRECTION_INBOUND},
        {"since": stamp(-100)},
        {"until": stamp(100)},
    ],
)
async def test_a_page_token_belongs_to_its_filters(
    api: Api, database: Database, other: Mapping[str, Any]
) -> None:
    """With other filters a token is refused, for it would skip messages."""
    await take(database, *(inbound(f"SM{n}", contact=1, seconds=n) for n in range(3)))
    first = await api.ListMessages(pb.ListMessagesRequest(page_size=2))
    error = await refusal(api, pb.ListMessagesRequest(page_token=first.next_page_token, **other))
    assert details(error)["ErrorInfo"].metadata["field"] == "page_token"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListMessagesRequest(page_size=-1), "page_size"),
        (pb.ListMessagesRequest(page_token="nonsense"), "page_token"),
        (pb.ListMessagesRequest(contact_address="nobody"), "contact_address"),
        (pb.ListMessagesRequest(contact_address="+1\0"), "contact_address"),
        (pb.ListMessagesRequest(contact_address="1" * 100_000), "contact_address"),
        (pb.ListMessagesRequest(status=99), "status"),  # type: ignore[arg-type] # Of no version.
        (pb.ListMessagesRequest(direction=99), "direction"),  # type: ignore[arg-type] # As above.
        (pb.ListMessagesRequest(since=Timestamp(seconds=2**60)), "since"),
        (pb.ListMessagesRequest(until=Timestamp(nanos=-5)), "until"),
        (pb.ListMessagesRequest(since=stamp(2), until=stamp(2)), "until"),
    ],
)
async def test_a_bad_list_request_names_its_field(
    api: Api, request_: pb.ListMessagesRequest, field: str
) -> None:
    """A malformed filter or page is refused, never taken for another question."""
    error = await refusal(api, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"].metadata["field"] == field


async def test_a_message_tells_its_history(api: Api, database: Database) -> None:
    """GetMessage returns all events, oldest first, with whose clock, provider and error."""
    await take(database, inbound("SM0", contact=1))
    async with database.write() as connection:
        identity = inbound("SM0", contact=1).identities[0]
        party = Party((identity,), f"whatsapp:{phone(1)}", inbound("SM0").own_address)
        [conversation] = await resolve_conversations(connection, [party], now())
        await connection.execute(
            insert(MessageRow).values(
                public_id="out1",
                conversation_id=conversation.id,
                direction="outbound",
                author="api",
                contact_address=party.contact_address,
                own_address=party.own_address,
                body="Hello",
                media=[],
                provider="twilio",
                provider_message_id="SM1",
                status="sending",
                created_at=at(0),
            )
        )
    reports = [
        report("SM1", MessageStatus.SENT, seconds=1),
        replace(report("SM1", MessageStatus.FAILED, seconds=2), error_code="63016"),
    ]
    for one in reports:
        await receive(SqlIngestStore(database), clock=now, replies=None)([], [one])
    plain = await api.GetMessage(pb.GetMessageRequest(id="out1"))
    assert not plain.events
    answer = await api.GetMessage(pb.GetMessageRequest(id="out1", include_events=True))
    assert answer.message == plain.message
    assert [event.status for event in answer.events] == [
        message_pb2.MESSAGE_STATUS_SENT,
        message_pb2.MESSAGE_STATUS_FAILED,
    ]
    assert {event.kind for event in answer.events} == {message_pb2.MESSAGE_EVENT_KIND_STATUS}
    assert {event.provider for event in answer.events} == {"twilio"}
    assert {event.message_id for event in answer.events} == {"out1"}
    assert answer.events[1].error_code == "63016"
    first = answer.events[0].occurred_at
    assert first.time == stamp(1)
    assert first.source == message_pb2.TIME_SOURCE_RECEIVED


async def test_the_queues_are_counted(api: Api, database: Database) -> None:
    """GetStatus says what waits, and since when the oldest does."""
    before = await api.GetStatus(pb.GetStatusRequest())
    assert before.provider.name == "twilio"
    assert not before.HasField("fallback")
    assert not before.queues.HasField("oldest_unsettled_at")
    await take(database, replace(inbound("SM1", contact=1), received_at=now()))
    await receive(SqlIngestStore(database), clock=now, replies=None)(
        [], [report("SM9", MessageStatus.SENT)]
    )
    sent = await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Hello"))
    await api.SendMessage(pb.SendMessageRequest(to=phone(1), body="Again"))
    queues = (await api.GetStatus(pb.GetStatusRequest())).queues
    assert (queues.due, queues.sending, queues.unknown) == (2, 0, 0)
    assert (queues.replies, queues.parked) == (0, 1)
    assert queues.oldest_unsettled_at == sent.message.created_at
