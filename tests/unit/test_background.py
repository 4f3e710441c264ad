"""Work that outlasts a cancellation."""

import asyncio
from collections.abc import Sequence

import pytest

from services.common.errors import UnavailableError
from services.messaging.usecases.background import claimed, drained, take_due


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


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "just ended"])
async def test_what_a_cancelled_claim_takes_is_given_back(ended: bool) -> None:
    """Whether the claim is under way or has just ended when its caller is cancelled, what it takes
    is given back before the caller ends, and a failure of that is not the caller's end."""
    begun, may_end = asyncio.Event(), asyncio.Event()
    given_back = []

    async def claim() -> str:
        begun.set()
        if ended:
            # Between the claim's end and its caller's next turn.
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            await may_end.wait()
        return "a message"

    async def give_back(taken: str) -> None:
        await asyncio.sleep(0)
        given_back.append(taken)
        raise UnavailableError("the database is away")

    task = asyncio.create_task(claimed(claim(), give_back))
    await begun.wait()
    if not ended:
        task.cancel()
        may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_back == ["a message"]


async def test_whoever_is_woken_looks_at_once() -> None:
    """What becomes due is taken when somebody says so, not when it would be looked for anyway."""
    waiting: list[int] = []
    looked, woken, taken = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def due(limit: int) -> Sequence[int]:
        looked.set()
        return [waiting.pop() for _ in waiting[:limit]]

    async def take(one: int) -> None:
        taken.set()

    taking = asyncio.create_task(take_due(due, take, concurrency=2, poll_seconds=3600, woken=woken))
    await looked.wait()
    waiting.append(1)
    woken.set()
    async with asyncio.timeout(60):
        await taken.wait()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
