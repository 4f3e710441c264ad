"""Webhooks that never came are made up for, once, from Twilio's own list."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, repeat
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from sandbox.faults import Fault, Faults
from sandbox.server import RunningSandbox
from services.common.errors import UnavailableError
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.messaging.consumers.journaling import WebhookJournal
from services.messaging.providers.twilio.history import TwilioHistory
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.known import SqlKnownMessages
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.find_lost import FindLostWebhooks
from services.messaging.usecases.receive import Receive
from tests.support.journal import consuming, dead, journal, publish
from tests.support.nats import NatsServer
from tests.support.receiving import receive, rows, webhook_event
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN, CONTACT, OUR_NUMBER
from tests.support.sending import (
    ANY_TIME,
    ManualClock,
    new_message,
    now,
    open_database,
    open_sandbox,
    running,
    sender,
    twilio,
    twilio_session,
    until,
    until_settled,
)

SOON = timedelta()


@dataclass
class Finder:
    """The use case, and what it counts."""

    lost: FindLostWebhooks
    registry: CollectorRegistry

    def gaps(self, kind: str) -> float | None:
        """How many were found."""
        labels = {"provider": "twilio", "kind": kind}
        return self.registry.get_sample_value("switchboard_webhook_gaps_total", labels)


@contextlib.asynccontextmanager
async def finding(
    sandbox: RunningSandbox,
    database: Database,
    client: Client,
    *,
    grace: timedelta = SOON,
    patience: float = 10,
    clock: Any = now,
    **more: Any,
) -> AsyncIterator[Finder]:
    """Everything as messaging wires it."""
    registry = CollectorRegistry()
    publisher = JournalPublisher(client)
    async with twilio_session(sandbox.base_url) as session:
        lost = FindLostWebhooks(
            TwilioHistory(session, own_address=OUR_NUMBER),
            SqlKnownMessages(database),
            WebhookJournal(client, publisher, clock=clock, patience_seconds=patience),
            clock=clock,
            registry=registry,
            interval=timedelta(seconds=0.1),
            look_back=timedelta(hours=24),
            grace=grace,
            **more,
        )
        yield Finder(lost, registry)
    await publisher.close()


async def caught_up(client: Client) -> bool:
    """Wait until everything in the journal is handled."""
    return await WebhookJournal(client, JournalPublisher(client), clock=now).caught_up()


def real(database: Database) -> Receive:
    """What stores the journal's events, without an assistant."""
    return receive(SqlIngestStore(database), clock=now, replies=None)


async def write(sandbox: RunningSandbox, body: str, times: int = 1, **more: Any) -> str:
    """A contact writes, and the webhook is lost; returns the last message's sid."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        written = {"body": body, "deliver": False, **more}
        for _ in range(times):
            answer = await http.post(f"/sandbox/contacts/{CONTACT}/messages", json=written)
        return str(answer.json()["sid"])


def webhook_of(sid: str, body: str) -> JournalEvent:
    """The webhook of a message, when it comes after all."""
    return webhook_event(
        EventKind.WHATSAPP_MESSAGE,
        f"message:{sid}",
        {"MessageSid": sid, "From": CONTACT, "To": OUR_NUMBER, "Body": body, "ProfileName": "Dana"},
        received_at=now(),
    )


async def test_lost_messages_are_stored_with_their_origin(
    nats_server: NatsServer, database_url: str
) -> None:
    """What the list shows and the store lacks arrives as if its webhook had come, and is counted.

    Files included; a second look, and the webhook itself coming late, change nothing.
    """
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
        consuming(client, real(database)),
    ):
        first = await write(sandbox, "Is anybody there?")
        await write(sandbox, "A picture", media=[{}, {"content_type": "audio/ogg"}])
        await write(sandbox, "More than a page", times=250)
        assert await finder.lost.look() == 252
        assert await caught_up(client)
        stored = {row["body"]: row for row in await rows(database, "messages")}
        assert len(await rows(database, "messages")) == 252
        message = stored["Is anybody there?"]
        assert message["provider_message_id"] == first
        assert (message["direction"], message["contact_address"]) == ("inbound", CONTACT)
        # By Twilio's clock, in whole seconds: its age decides whether it is answered.
        sent_at = sandbox.state.messages[first].created_at.replace(microsecond=0)
        assert message["created_at"] == sent_at
        assert [one["content_type"] for one in stored["A picture"]["media"]] == [
            "image/png",
            "audio/ogg",
        ]
        assert len(await rows(database, "media_fetches")) == 1
        events = await rows(database, "message_events")
        assert {row["origin"] for row in events} == {"reconciler"}
        assert (finder.gaps("message"), finder.gaps("status")) == (252, 0)

        assert await finder.lost.look() == 0
        await publish(client, webhook_of(first, "Is anybody there?"))
        assert await caught_up(client)
        assert await rows(database, "message_events") == events
        assert finder.gaps("message") == 252
        assert await dead(client) == []


async def test_replicas_that_find_the_same_store_it_once(
    nats_server: NatsServer, database_url: str
) -> None:
    """Several processes looking at once, and the webhook arriving meanwhile, make one message."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as one,
        finding(sandbox, database, client) as other,
    ):
        sids = [await write(sandbox, f"Number {number}") for number in range(5)]
        async with consuming(client, real(database)):
            await asyncio.gather(
                one.lost.look(),
                other.lost.look(),
                *(publish(client, webhook_of(sid, "late")) for sid in sids),
            )
            assert await caught_up(client)
        messages = await rows(database, "messages")
        assert sorted(row["provider_message_id"] for row in messages) == sorted(sids)
        assert len(await rows(database, "message_events")) == 5


async def test_what_is_on_its_way_is_not_lost(nats_server: NatsServer, database_url: str) -> None:
    """Neither a recent message nor one that waits in the journal counts as missing."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
    ):
        sid = await write(sandbox, "Just now")
        async with finding(sandbox, database, client, grace=timedelta(minutes=1)) as finder:
            assert await finder.lost.look() == 0
        async with finding(sandbox, database, client, patience=0.2) as finder:
            await publish(client, webhook_of(sid, "Just now"))
            # Nobody handles it: there is no telling yet.
            assert await finder.lost.look() == 0
        async with finding(sandbox, database, client) as finder, consuming(client, real(database)):
            assert await finder.lost.look() == 0
            assert finder.gaps("message") == 0
        [event] = await rows(database, "message_events")
        assert event["origin"] is None


async def test_beyond_the_look_back_nothing_is_found(
    nats_server: NatsServer, database_url: str
) -> None:
    """Messages from before the time looked back to are left alone, on whichever page they are."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        consuming(client, real(database)),
    ):
        clock = ManualClock()
        old, recent = await write(sandbox, "Old"), await write(sandbox, "Recent")
        sandbox.state.messages[old].created_at -= timedelta(hours=25)
        clock.time = now() + timedelta(seconds=5)
        async with finding(sandbox, database, client, clock=clock) as finder:
            assert await finder.lost.look() == 1
            assert await caught_up(client)
        [message] = await rows(database, "messages")
        assert message["provider_message_id"] == recent


async def test_old_messages_are_stored_and_not_answered(
    nats_server: NatsServer, database_url: str
) -> None:
    """A message found long after it was written waits for a person, like any that comes late."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
    ):
        old, recent = await write(sandbox, "Old"), await write(sandbox, "Recent")
        sandbox.state.messages[old].created_at -= timedelta(hours=2)
        async with consuming(client, receive(SqlIngestStore(database), clock=now)):
            assert await finder.lost.look() == 2
            assert await caught_up(client)
        messages = {row["provider_message_id"]: row for row in await rows(database, "messages")}
        [pending] = await rows(database, "pending_replies")
        assert pending["up_to_id"] == messages[recent]["id"]


@pytest.mark.parametrize("failed", [False, True])
async def test_lost_statuses_catch_up(
    nats_server: NatsServer, database_url: str, failed: bool
) -> None:
    """A message whose callbacks were all lost ends where Twilio says it stands, with the error."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
        consuming(client, real(database)),
        twilio(sandbox.base_url) as provider,
    ):
        outbox = SqlOutboxStore(database, now, ANY_TIME)
        await outbox.enqueue(new_message())
        faults: dict[str, Any] = {"no_callbacks": Fault()}
        if failed:
            faults["failed_messages"] = {"error_code": 63016}
        sandbox.set_faults(Faults(**faults))
        async with running(sender(outbox, provider).dispatcher.run()):
            await until_settled(database)
        await sandbox.settled()
        assert await finder.lost.look() == 1
        assert await caught_up(client)
        [message] = await rows(database, "messages")
        [event] = [row for row in await rows(database, "message_events") if row["origin"]]
        assert (event["kind"], event["origin"]) == ("status", "reconciler")
        if failed:
            assert (message["status"], message["error_code"]) == ("failed", "63016")
            key = f"status:{message['provider_message_id']}:failed:63016"
        else:
            assert (message["status"], message["read_source"]) == ("read", "received")
            key = f"status:{message['provider_message_id']}:read"
        # The key that the webhook has.
        assert event["event_key"] == key
        assert await finder.lost.look() == 0
        assert (finder.gaps("message"), finder.gaps("status")) == (0, 1)


async def test_comparing_many_messages_leaves_time_to_answer_others(
    nats_server: NatsServer, database_url: str
) -> None:
    """After each page three times as long is rested as it took, at most a second.

    Comparing thousands at once kept answers waiting for most of a second.
    """
    seconds = chain((10.0, 10.25, 11.0, 13.0), repeat(14.0))
    rests: list[float] = []

    async def rest(pause: float) -> None:
        rests.append(pause)

    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client, sleep=rest, monotonic=lambda: next(seconds)) as finder,
        consuming(client, real(database)),
    ):
        await write(sandbox, "More than a page", times=201)
        assert await finder.lost.look() == 201
    assert rests[:2] == [0.75, 1.0]
    assert not any(rests[2:])


async def test_messages_of_other_programs_are_left_alone(
    nats_server: NatsServer, database_url: str
) -> None:
    """What somebody else sent from our number is no message of ours."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
        httpx.AsyncClient(auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60) as http,
    ):
        form = {"To": CONTACT, "From": OUR_NUMBER, "Body": "From elsewhere"}
        url = f"{sandbox.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"
        assert (await http.post(url, data=form)).status_code == 201
        await sandbox.settled()
        assert await finder.lost.look() == 0


async def test_what_cannot_be_stored_is_found_once(
    nats_server: NatsServer, database_url: str
) -> None:
    """A message that ends in DEAD doesn't come back with every comparison."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
        consuming(client, real(database)),
    ):
        sid = await write(sandbox, "From nobody")
        sandbox.state.messages[sid].sender = "whatsapp:nobody"
        assert await finder.lost.look() == 1
        assert await caught_up(client)
        assert len(await dead(client)) == 1
        assert await finder.lost.look() == 0


async def test_trouble_is_waited_for(nats_server: NatsServer, database_url: str) -> None:
    """While Twilio or the broker is away nothing is found or lost, and it goes on afterwards."""
    async with (
        open_sandbox() as sandbox,
        journal(nats_server) as client,
        open_database(database_url) as database,
        finding(sandbox, database, client) as finder,
        consuming(client, real(database)),
    ):
        await write(sandbox, "Still here")
        sandbox.set_faults(Faults(error_500={"on": "read"}))
        with pytest.raises(UnavailableError):
            await finder.lost.look()
        async with running(finder.lost.run()):
            await asyncio.sleep(0.3)
            nats_server.kill()
            sandbox.set_faults(Faults())
            await asyncio.sleep(0.5)
            nats_server.start()

            async def stored() -> bool:
                return len(await rows(database, "messages")) == 1

            await until(stored)
        assert len(await rows(database, "message_events")) == 1


def test_the_origin_is_an_addition() -> None:
    """An event of a program that doesn't know the field is one that a webhook brought."""
    old = WebhookReceived(provider="twilio", parameters=[Parameter(name="a", value="b")])
    assert old.origin == ""
