"""Work that outlasts a cancellation."""

import asyncio

import pytest

from services.common.errors import UnavailableError
from services.messaging.usecases.background import drained


async def test_a_cancellation_is_never_lost() -> None:
    """Whoever is cancelled while the work fails ends by the cancellation, not by the failure."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may_end.wait()
        raise UnavailableError("the database is away")

    task = asyncio.create_task(drained(work()))
    await begun.wait()
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_reaches_who_waits() -> None:
    """Without a cancellation the work's error is the caller's."""

    async def work() -> None:
        raise UnavailableError("the database is away")

    with pytest.raises(UnavailableError):
        await drained(work())
