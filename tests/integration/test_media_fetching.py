"""Files of contacts: from Twilio into the object store."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from sandbox.faults import Fault, Faults
from sandbox.server import RunningSandbox
from services.common.errors import UnavailableError
from services.common.journal.streams import connect
from services.messaging.ports.media import File
from services.messaging.providers.twilio.media import TwilioMedia
from services.messaging.providers.twilio.webhooks import inbound_message
from services.messaging.store.database import Database
from services.messaging.store.files import ObjectMediaStore
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.media import SqlMediaQueue
from services.messaging.usecases.fetch_media import FetchMedia
from tests.support.files import source
from tests.support.hostile import (
    hostile,
    slow_body,
)
from tests.support.nats import NatsServer
from tests.support.receiving import receive, rows
from tests.support.sandbox import Receiver, running_receiver
from tests.support.sending import now, open_database, open_sandbox, running, until


@contextlib.asynccontextmanager
async def broker(server: NatsServer) -> AsyncIterator[Client]:
    """A connection to NATS."""

    async def closed() -> None:
        pass

    client = await connect(server.url, name="test", on_closed=closed)
    try:
        yield client
    finally:
        await client.close()


def fetching(database: Database, client: Client, base_url: str, **changes: Any) -> FetchMedia:
    """The use case as messaging wires it, with short pauses."""
    return FetchMedia(
        SqlMediaQueue(database, now),
        {"twilio": source(base_url)},
        ObjectMediaStore(database, client, clock=now, replicas=1),
        clock=now,
        registry=CollectorRegistry(),
        **{"first_pause": timedelta(seconds=0.05), "poll_seconds": 0.05, **changes},
    )


async def write(sandbox: RunningSandbox, receiver: Receiver, database: Database) -> None:
    """A contact sends two pictures and a voice message; the webhook is stored."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        media = [{}, {"content_type": "audio/ogg"}, {"content_type": "text/html"}]
        written = {"body": "Look", "media": media}
        await http.post("/sandbox/contacts/+972501234567/messages", json=written)
    form = receiver.received[-1].form
    webhook = WebhookReceived(
        parameters=[Parameter(name=name, value=value) for name, value in form.multi_items()]
    )
    message = inbound_message(f"message:{form['MessageSid']}", webhook, now())
    await receive(SqlIngestStore(database), clock=now)([message], [])


async def media_of(database: Database) -> list[dict[str, Any]]:
    """What is noted of the only message's files."""
    [message] = await rows(database, "messages")
    media: list[dict[str, Any]] = message["media"]
    return media


def nothing_left(database: Database) -> Callable[[], Any]:
    """Whether no message waits for its files."""

    async def empty() -> bool:
        return not await rows(database, "media_fetches")

    return empty


async def test_files_are_fetched_and_can_be_read(
    nats_server: NatsServer, database_url: str
) -> None:
    """Each file is stored under the hash of its content, with a type that is safe to serve.

    Twilio's 404s at the beginning only delay it, and its media host never sees the credentials.
    """
    async with (
        running_receiver() as receiver,
        open_sandbox(webhook_url=receiver.base_url) as sandbox,
        open_database(database_url) as database,
        broker(nats_server) as client,
    ):
        await write(sandbox, receiver, database)
        sandbox.set_faults(Faults(media_missing=Fault(times=2)))
        async with running(fetching(database, client, sandbox.base_url).run()):
            await until(nothing_left(database))
        picture, voice, page = await media_of(database)
        # Another replica.
        async with broker(nats_server) as other:
            store = ObjectMediaStore(database, other, clock=now, replicas=1)
            found = await store.read(picture["id"])
            assert found is not None
            assert found.content.startswith(b"\x89PNG")
            assert hashlib.sha256(found.content).hexdigest() == picture["id"]
            assert (found.content_type, len(found.content)) == ("image/png", picture["size_bytes"])
            sound, html = await store.read(voice["id"]), await store.read(page["id"])
            assert sound is not None
            assert sound.content_type == "audio/ogg"
            assert html is not None
            assert html.content_type == "application/octet-stream"
            assert await store.read("0" * 64) is None
        assert len(await rows(database, "media")) == 3
        asked = [one for one in sandbox.state.requests if one.path.startswith("/media/")]
        assert len(asked) == 3
        assert not any(one.authorized for one in asked)


async def test_a_file_that_never_comes_is_a_problem(
    nats_server: NatsServer, database_url: str
) -> None:
    """After some attempts the message says why there is no file, and nothing waits for it."""
    async with (
        running_receiver() as receiver,
        open_sandbox(webhook_url=receiver.base_url) as sandbox,
        open_database(database_url) as database,
        broker(nats_server) as client,
    ):
        await write(sandbox, receiver, database)
        sandbox.set_faults(Faults(media_missing=Fault()))
        work = fetching(database, client, sandbox.base_url, max_attempts=2)
        async with running(work.run()):
            await until(nothing_left(database))
        assert {one["problem"] for one in await media_of(database)} == {"the answer was HTTP 404"}
        assert await rows(database, "media") == []


async def test_replicas_fetch_a_message_once_and_a_stop_gives_it_back(
    nats_server: NatsServer, database_url: str
) -> None:
    """What one process has claimed no other takes; one that stops leaves it to the next at once."""
    async with (
        running_receiver() as receiver,
        open_sandbox(webhook_url=receiver.base_url) as sandbox,
        open_database(database_url) as database,
        broker(nats_server) as client,
        hostile(slow_body) as slow,
    ):
        await write(sandbox, receiver, database)
        queue = SqlMediaQueue(database, now)
        [task] = await queue.claim(limit=5, lease=timedelta(minutes=1))
        assert await queue.claim(limit=5, lease=timedelta(minutes=1)) == ()
        assert len(task.urls) == 3
        await queue.settle(task, {0: "it is not to be had"}, now())
        # The first process is stuck in a download when it has to stop.
        stuck = fetching(database, client, slow.base_url)
        stuck._sources = {"twilio": _Redirected(source(slow.base_url), slow.base_url)}
        async with running(stuck.run()):
            await until(slow.was_asked)
        async with running(fetching(database, client, sandbox.base_url).run()):
            await until(nothing_left(database), seconds=10)
        refused, *others = await media_of(database)
        assert refused["problem"] == "it is not to be had"
        assert all("id" in one for one in others)


class _Redirected:
    """Fetches every file from one place."""

    def __init__(self, inner: TwilioMedia, url: str) -> None:
        self._inner, self._url = inner, url

    async def fetch(self, url: str) -> File:
        return await self._inner.fetch(f"{self._url}/file")


async def test_the_same_content_is_stored_once(nats_server: NatsServer, database_url: str) -> None:
    """Two replicas that store one content at the same moment end up with one readable file."""
    content = bytes(range(256)) * 4000
    async with (
        open_database(database_url) as database,
        broker(nats_server) as one,
        broker(nats_server) as other,
    ):
        stores = [ObjectMediaStore(database, c, clock=now, replicas=1) for c in (one, other, one)]
        stored = await asyncio.gather(*(s.put(File(content, "image/png")) for s in stores))
        assert len(set(stored)) == 1
        assert await stores[0].read(stored[0].id) == File(content, "image/png")
        assert len(await rows(database, "media")) == 1


async def test_a_broker_that_is_away_is_unavailable(
    nats_server: NatsServer, database_url: str
) -> None:
    """Neither storing nor reading hangs or lies while the object store can't be reached."""
    async with open_database(database_url) as database, broker(nats_server) as client:
        store = ObjectMediaStore(database, client, clock=now, replicas=1, timeout_seconds=2)
        stored = await store.put(File(b"here", "text/plain; charset=utf-8"))
        assert stored.content_type == "text/plain"
        nats_server.kill()
        with pytest.raises(UnavailableError):
            await store.put(File(b"there", "text/plain"))
        with pytest.raises(UnavailableError):
            await store.read(stored.id)
        nats_server.start()

        async def back() -> bool:
            return client.is_connected

        await until(back)
        assert await store.read(stored.id) == File(b"here", "text/plain")
