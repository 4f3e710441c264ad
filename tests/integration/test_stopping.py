"""What is being claimed at the moment of a stop is free for others at once, not after its lease."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from services.messaging.domain.message import Media
from services.messaging.ports.answering import Turn
from services.messaging.store.database import Database
from services.messaging.store.files import ObjectMediaStore
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.media import SqlMediaQueue
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.fetch_media import FetchMedia
from services.messaging.usecases.reply import Replies
from tests.support.receiving import at, inbound, receive
from tests.support.sending import ManualClock
from tests.support.turns import open_line

LEASE = timedelta(minutes=1)


class Silent:
    """An assistant that has no answers."""

    async def answer(self, turns: Sequence[Turn]) -> str:
        return ""


async def stop_while_claiming(store: Any, claim: str, loop: Coroutine[Any, Any, None]) -> None:
    """Run a loop, and stop it when it has begun to claim."""
    begun = asyncio.Event()
    real = getattr(store, claim)

    async def told(*args: Any, **values: Any) -> Any:
        begun.set()
        return await real(*args, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, claim, told)
        running = asyncio.create_task(loop)
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_replies(database: Database) -> None:
    """A contact doesn't wait for the lease of a process that was stopped before it began."""
    clock = ManualClock(at(60))
    await receive(SqlIngestStore(database), clock=clock)([inbound("SM1")], [])
    store = SqlReplyStore(database, clock)
    replies = Replies(
        store,
        Silent(),
        provider="twilio",
        clock=clock,
        on_queued=lambda: None,
        context_messages=1,
        lease=LEASE,
    )
    await stop_while_claiming(store, "claim_replies", replies.run())
    assert len(await store.claim_replies(limit=5, lease=LEASE, context=1, max_answers=60)) == 1


async def test_files(database: Database) -> None:
    """A message's files are fetched by the next process at once."""
    clock = ManualClock(at(60))
    picture = replace(inbound("SM1"), media=(Media("https://example.com/1", "image/png"),))
    await receive(SqlIngestStore(database), clock=clock)([picture], [])
    queue = SqlMediaQueue(database, clock)
    files = ObjectMediaStore(database, Client(), clock=clock, replicas=1)
    fetching = FetchMedia(queue, {}, files, clock=clock, registry=CollectorRegistry(), lease=LEASE)
    await stop_while_claiming(queue, "claim", fetching.run())
    assert len(await queue.claim(limit=5, lease=LEASE)) == 1


async def test_turns(database_url: str) -> None:
    """What a caller said is answered by another process while the caller waits."""
    async with open_line(database_url, work=False) as line:
        await line.says()
        await stop_while_claiming(line.store, "claim_turn", line.worker.run())
        assert await line.store.claim_turn("CA1", 1, lease=LEASE) is not None
