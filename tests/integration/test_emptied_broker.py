"""A broker that comes back empty gives new events the places that others had."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import nats.errors
from nats.aio.client import Client

from services.common.errors import UnavailableError
from services.common.journal.events import EventKind
from services.common.journal.streams import INGEST_STREAM, ensure_streams
from services.messaging.consumers.ingest import DURABLE
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from tests.support.journal import JOURNAL_BYTES, consuming, dead, journal, publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import Inbox, message_event, webhook_event
from tests.support.sending import until


async def test_nothing_is_said_of_events_to_a_broker_that_came_back_empty(
    nats_server: NatsServer,
) -> None:
    """What an earlier one lent is not mistaken for what has its place now, which isn't lost."""
    began, go_on = asyncio.Event(), asyncio.Event()
    stored: list[str] = []
    away = True

    async def handle(messages: Sequence[InboundMessage], reports: Sequence[StatusReport]) -> None:
        nonlocal away
        [message] = messages
        if message.provider_message_id == "SM00000001":
            began.set()
            await go_on.wait()
        elif away:
            away = False
            raise UnavailableError("the database is away")
        else:
            stored.append(message.provider_message_id)

    async with journal(nats_server) as client, consuming(client, handle, ack_wait=5):
        await publish(client, message_event(1))
        await began.wait()
        nats_server.stop()
        nats_server.wipe()
        nats_server.start()
        await until(partial(_streams_are_there, client))
        await publish(client, message_event(2))
        await until(partial(_is_lent, client))
        go_on.set()
        await until(settled(client))
    assert stored == ["SM00000002"]


async def _streams_are_there(client: Client) -> bool:
    with contextlib.suppress(nats.errors.Error, OSError):
        await ensure_streams(client.jetstream(), replicas=1, max_bytes=JOURNAL_BYTES)
        return True
    return False


async def _is_lent(client: Client) -> bool:
    lent: int | None = None
    with contextlib.suppress(nats.errors.Error, OSError):
        lent = (await client.jetstream().consumer_info(INGEST_STREAM, DURABLE.name)).num_ack_pending
    return lent == 1


async def test_letters_of_a_journal_that_was_made_anew_are_others(
    nats_server: NatsServer,
) -> None:
    """An event with the place of an earlier one isn't taken for it in DEAD."""
    poison = [webhook_event(EventKind.WHATSAPP_MESSAGE, key, {}, provider="pigeon") for key in "ab"]
    async with journal(nats_server) as client:
        for event in poison:
            await publish(client, event)
            async with consuming(client, Inbox()):
                await until(settled(client))
            await client.jetstream().delete_stream(INGEST_STREAM)
            await until(partial(_streams_are_there, client))
        letters = await dead(client)
    assert [(letter.headers or {})["ce-id"] for letter in letters] == ["a", "b"]
