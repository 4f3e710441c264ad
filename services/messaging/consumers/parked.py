"""A slow, regular look at parked reports."""

import asyncio
import contextlib
from datetime import timedelta

import structlog

from services.common.errors import UnavailableError
from services.messaging.ports.clock import Clock
from services.messaging.ports.receiving import IngestStore
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)


async def sweep_parked(
    store: IngestStore, *, keep: timedelta, clock: Clock, every_seconds: float = 60.0
) -> None:
    """Apply parked reports whose message is known, and drop the old ones, for ever.

    Whoever stores a message or a report looks right after its commit; this covers a process
    that died in between, and contacts that have turned out to be one. Old ones are about messages
    that other programs sent from our number, or other contacts wrote.
    """
    stop = asyncio.Event()
    await drained(_sweep(store, keep, clock, every_seconds, stop), stop.set)


async def _sweep(
    store: IngestStore, keep: timedelta, clock: Clock, every_seconds: float, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_seconds)
            return
        try:
            await store.apply_parked()
            if dropped := await store.drop_parked(clock() - keep):
                log.info("old reports about unknown messages were dropped", count=dropped)
        except UnavailableError:
            log.warning("parked reports wait for the database")
