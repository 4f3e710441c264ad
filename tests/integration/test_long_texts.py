"""Pages of texts as long as WhatsApp lets them be, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.messaging.domain.message import (
    EventKind,
    Moment,
    StatusReport,
    TimeSource,
)
from services.messaging.store.changes import SqlChangeReader
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from tests.support.grpc_api import called, served
from tests.support.receiving import at, inbound, receive
from tests.support.sending import now

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )

LONG = "👍" * 60_000
"""240 KB in UTF-8."""
MOST_BYTES = 1024 * 1024
MANY = 20


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with served(database) as server, called(server) as api:
        yield api


async def take_long_messages(database: Database) -> None:
    """Each from a contact of its own, ended by its number; and then a few short ones."""
    take = receive(SqlIngestStore(database), clock=now, replies=None)
    for number in range(MANY):
        await take([inbound(f"SM{number}", contact=number, seconds=number, body=LONG)], [])
    for number in range(MANY, MANY + 5):
        await take([inbound(f"SM{number}", contact=number, seconds=number)], [])


async def test_a_list_of_long_messages(api: Api, database: Database) -> None:
    """Pages end sooner, and show each message once."""
    await take_long_messages(database)
    seen: list[str] = []
    request = pb.ListMessagesRequest(page_size=200)
    while True:
        page = await api.ListMessages(request)
        assert page.ByteSize() < MOST_BYTES
        seen += [message.provider_message_id for message in page.messages]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [f"SM{number}" for number in reversed(range(MANY + 5))]


async def test_a_list_of_conversations_with_long_messages(api: Api, database: Database) -> None:
    """Pages end sooner, and show each conversation once."""
    await take_long_messages(database)
    seen: list[str] = []
    request = pb.ListConversationsRequest(page_size=200)
    while True:
        page = await api.ListConversations(request)
        assert page.ByteSize() < MOST_BYTES
        seen += [one.last_message.provider_message_id for one in page.conversations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [f"SM{number}" for number in reversed(range(MANY + 5))]


async def test_a_message_that_was_edited_often(api: Api, database: Database) -> None:
    """Its history is what happened last, in order."""
    take = receive(SqlIngestStore(database), clock=now, replies=None)
    await take([inbound("SM1")], [])
    edits = [
        StatusReport(
            event_key=f"edit:{number}",
            provider="twilio",
            provider_message_id="SM1",
            status=None,
            moment=Moment(at(number), TimeSource.PROVIDER),
            kind=EventKind.EDIT,
            text=f"{LONG}{number}",
        )
        for number in range(MANY)
    ]
    for edit in edits:
        await take([], [edit])
    [message] = (await api.ListMessages(pb.ListMessagesRequest())).messages
    found = await api.GetMessage(pb.GetMessageRequest(id=message.id, include_events=True))
    assert found.ByteSize() < 2 * MOST_BYTES
    assert found.message.body == edits[-1].text
    newest = [event.text for event in found.events]
    assert newest
    assert newest == [edit.text for edit in edits[-len(newest) :]]


async def test_a_message_with_a_long_history(api: Api, database: Database) -> None:
    """No more than the newest two hundred."""
    take = receive(SqlIngestStore(database), clock=now, replies=None)
    await take([inbound("SM1")], [])
    reactions = [
        StatusReport(
            event_key=f"reaction:{number:03}",
            provider="twilio",
            provider_message_id="SM1",
            status=None,
            moment=Moment(at(number), TimeSource.PROVIDER),
            kind=EventKind.REACTION,
            text=str(number),
        )
        for number in range(300)
    ]
    await take([], reactions)
    [message] = (await api.ListMessages(pb.ListMessagesRequest())).messages
    found = await api.GetMessage(pb.GetMessageRequest(id=message.id, include_events=True))
    assert [event.text for event in found.events] == [str(number) for number in range(100, 300)]


@pytest.mark.parametrize("contact", [None, 3])
async def test_a_watcher_holds_few_long_messages(
    api: Api, database: Database, contact: int | None
) -> None:
    """What is read for a watcher at once ends sooner, and nothing is left out."""
    await take_long_messages(database)
    reader = SqlChangeReader(database)
    position, seen = (0, 0), []
    who = None if contact is None else inbound("", contact=contact).identities[0]
    while True:
        page = await reader.after(position, limit=100, contact=who)
        assert sum(len(change.message.body) for change in page.changes) <= MOST_BYTES // 4
        seen += [change.message.provider_message_id for change in page.changes]
        position = page.position
        if page.is_last:
            break
    wanted = range(MANY + 5) if contact is None else [contact]
    assert seen == [f"SM{number}" for number in wanted]
