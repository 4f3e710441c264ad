"""Floods of those who have a token, a key or a number: each limit holds, and others are served."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.messaging.ports.media import File
from services.messaging.store.changes import SqlChangeReader
from services.messaging.usecases.watch import Watch
from tests.support.api import KEY, OTHER_KEY, PretendMessaging, running_api
from tests.support.api import served as pretending
from tests.support.attacks import Attacks
from tests.support.edge import journal_client, message, running_edge
from tests.support.grpc_api import MemoryMediaStore, called, have_written, served
from tests.support.nats import NatsServer
from tests.support.receiving import phone, rows
from tests.support.sending import open_database

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def ended(call: Any) -> grpc.StatusCode:
    """OK for a call that was answered, or a stream that begins."""
    try:
        await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@on_sqlite
async def test_one_contact_is_not_flooded(database_url: str, attacks: Attacks) -> None:
    """However many messages a key sends to a contact at once, few wait; others are written to."""
    async with (
        open_database(database_url) as database,
        served(database) as server,
        called(server) as api,
    ):
        await have_written(database, 0, 1)
        request = pb.SendMessageRequest(to=phone(0), body="x")
        codes = await asyncio.gather(*(ended(api.SendMessage(request)) for _ in range(250)))
        refused = [code for code in codes if code is not grpc.StatusCode.OK]
        for code in refused:
            through = code is not grpc.StatusCode.RESOURCE_EXHAUSTED
            attacks.count("floods: sends to a contact", through=through, evidence=code)
        assert len(await rows(database, "outbox")) == len(codes) - len(refused) == 100
        other = await ended(api.SendMessage(pb.SendMessageRequest(to=phone(1), body="x")))
        assert other is grpc.StatusCode.OK


@on_sqlite
async def test_watchers_are_bounded(database_url: str, attacks: Attacks) -> None:
    """Beyond so many watchers one is told to come later; other calls are answered meanwhile."""
    async with open_database(database_url) as database:
        watch = Watch(SqlChangeReader(database), max_watchers=20)
        async with served(database, watch=watch) as server, called(server) as api:
            calls = [api.WatchMessages(pb.WatchMessagesRequest()) for _ in range(60)]
            codes = await asyncio.gather(*map(ended, calls))
            codes.sort(key=lambda code: code is not grpc.StatusCode.OK)
            for code in codes[20:]:
                through = code is not grpc.StatusCode.RESOURCE_EXHAUSTED
                attacks.count("floods: watchers", through=through, evidence=code)
            listing = api.ListMessages(pb.ListMessagesRequest())
            assert await ended(listing) is grpc.StatusCode.OK
            for call in calls:
                call.cancel()


@on_sqlite
async def test_files_in_memory_are_bounded(database_url: str, attacks: Attacks) -> None:
    """Of files that nobody reads on messaging holds few; who leaves makes room for others."""
    media = MemoryMediaStore()
    # More than a client takes in by itself before it reads.
    stored = await media.put(File(b"x" * 32_000_000, "image/png"))
    async with (
        open_database(database_url) as database,
        served(database, media=media) as server,
        called(server) as api,
    ):
        calls = [api.GetMedia(pb.GetMediaRequest(id=stored.id)) for _ in range(80)]
        codes = await asyncio.gather(*map(ended, calls))
        codes.sort(key=lambda code: code is not grpc.StatusCode.OK)
        assert codes[0] is grpc.StatusCode.OK
        for code in codes[32:]:
            through = code is not grpc.StatusCode.RESOURCE_EXHAUSTED
            attacks.count("floods: slow readers of files", through=through, evidence=code)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(60):
            while await ended(api.GetMedia(pb.GetMediaRequest(id=stored.id))) is not (
                grpc.StatusCode.OK
            ):
                pass


@on_sqlite
async def test_calls_at_once_are_bounded(database_url: str, attacks: Attacks) -> None:
    """Of many calls at once only so many are begun; the others are refused, and later ones not."""
    async with (
        open_database(database_url) as database,
        served(database, max_concurrent=5, max_seconds=120) as server,
        called(server) as api,
    ):
        request = pb.ListMessagesRequest()
        codes = await asyncio.gather(*(ended(api.ListMessages(request)) for _ in range(200)))
        refused = [code for code in codes if code is not grpc.StatusCode.OK]
        assert 5 <= len(codes) - len(refused) < 200
        for code in refused:
            through = code is not grpc.StatusCode.RESOURCE_EXHAUSTED
            attacks.count("floods: calls at once", through=through, evidence=code)
        assert await ended(api.ListMessages(request)) is grpc.StatusCode.OK


async def test_waiting_sends_of_a_key_are_bounded(attacks: Attacks) -> None:
    """Sends that wait are few for a key; it may still send without waiting, and others wait."""
    messaging = PretendMessaging()
    async with pretending(messaging) as address, running_api(address, held_per_key=3) as api:
        body = {"to": phone(0), "body": "x"}

        async def send(key: str = KEY, wait: float = 4) -> int:
            answer = await api.http.post(
                "/api/whatsapp/send", json=body, params={"wait": wait}, headers={"x-api-key": key}
            )
            return answer.status_code

        # All have come before the first has waited long enough.
        codes = await asyncio.gather(*(send() for _ in range(30)), send(OTHER_KEY), send(wait=0))
        assert codes[-2:] == [202, 202]
        for code in sorted(codes[:-2])[3:]:
            attacks.count("floods: waiting sends", through=code != 429, evidence=code)


async def test_guessed_files_are_limited_by_sender(
    nats_server: NatsServer, tmp_path: Path, attacks: Attacks
) -> None:
    """Who asks for speech that isn't there is soon not looked up any more; others are."""
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db", audio_misses_per_minute=10) as edge,
    ):
        for number in range(60):
            answer = await edge.http.get(f"/audio/{number:064x}.mp3")
            through = answer.status_code != (404 if number < 10 else 429)
            attacks.count("floods: guessed files", through=through, evidence=answer.status_code)
        # Webhooks of the same sender aren't concerned.
        assert (await edge.post("/webhook/whatsapp/incoming", message("SM1"))).status_code == 200
