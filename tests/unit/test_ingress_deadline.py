"""The shared time limit."""

import asyncio

import pytest

from services.webhook.deadline import Deadline


async def test_what_takes_too_long_ends_in_a_timeout() -> None:
    """Each use has the whole time, and only those that exceed it are ended."""
    deadline = Deadline(1)

    async def wait(seconds: float) -> str:
        with deadline:
            await asyncio.sleep(seconds)
        return "in time"

    results = await asyncio.gather(wait(0.05), wait(5), wait(0), return_exceptions=True)
    assert [results[0], results[2]] == ["in time", "in time"]
    assert isinstance(results[1], TimeoutError)
    assert await wait(0.05) == "in time"


async def test_a_cancellation_from_outside_goes_on() -> None:
    """Whoever cancels the task isn't told of a timeout."""
    deadline = Deadline(5)

    async def wait() -> None:
        with deadline:
            await asyncio.sleep(5)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_task_can_wait_again_after_a_timeout() -> None:
    """A timeout leaves no cancellation behind."""
    deadline = Deadline(0.05)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(5)
    await asyncio.sleep(0)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
