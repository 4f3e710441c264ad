"""A slow, regular look at parked reports, should a quick one have been missed."""

import asyncio
import contextlib

import structlog

from services.common.errors import UnavailableError
from services.messaging.ports.receiving import IngestStore
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)


async def sweep_parked(store: IngestStore, *, every_seconds: float = 60.0) -> None:
    """Apply parked reports whose message is known, for ever.

    Whoever stores a message or a report looks right after its commit; this covers a process
    that died in between.
    """
    stop = asyncio.Event()
    await drained(_sweep(store, every_seconds, stop), stop.set)


async def _sweep(store: IngestStore, every_seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_seconds)
            return
        try:
            await store.apply_parked()
        except UnavailableError:
            log.warning("parked reports wait for the database")
