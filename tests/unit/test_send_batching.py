"""Doing together what many ask for at one moment."""

import asyncio
from collections.abc import Sequence

import pytest

from services.common.errors import UnavailableError
from services.messaging.store.batching import Batching


class Doubling:
    """Doubles numbers; a negative one spoils its batch, an odd one is refused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.away = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        await self.go_on.wait()
        if self.away:
            raise UnavailableError("the database is away")
        if any(number < 0 for number in numbers):
            raise RuntimeError("spoilt")
        return [ValueError(str(n)) if n % 2 else 2 * n for n in numbers]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    """One alone is done at once; what comes during it is done together, up to the limit."""
    do = Doubling()
    together = Batching(do, most=3)
    do.go_on.clear()
    first = asyncio.create_task(together(0))
    while not do.batches:  # noqa: ASYNC110 - nothing tells of a batch
        await asyncio.sleep(0)
    others = [asyncio.create_task(together(2 * n)) for n in range(1, 6)]
    await asyncio.sleep(0)
    do.go_on.set()
    assert await asyncio.gather(*others) == [4, 8, 12, 16, 20]
    assert await first == 0
    assert do.batches == [[0], [2, 4, 6], [8, 10]]


async def test_a_refusal_is_one_callers_own() -> None:
    """A refused item fails for its caller only."""
    together = Batching(Doubling(), most=10)
    results = await asyncio.gather(together(2), together(3), together(4), return_exceptions=True)
    assert (results[0], results[2]) == (4, 8)
    assert isinstance(results[1], ValueError)


async def test_one_that_spoils_a_batch_fails_alone() -> None:
    """When a batch fails for a reason of one of its items, the others are done without it."""
    together = Batching(Doubling(), most=10)
    results = await asyncio.gather(together(2), together(-1), together(4), return_exceptions=True)
    assert (results[0], results[2]) == (4, 8)
    assert isinstance(results[1], RuntimeError)


async def test_an_outage_is_everybodys() -> None:
    """When the database is away every caller learns it, and nothing is tried one by one."""
    do = Doubling()
    do.away = True
    together = Batching(do, most=10)
    results = await asyncio.gather(together(2), together(4), return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    assert do.batches == [[2, 4]]
    do.away = False
    assert await together(2) == 4


async def test_a_caller_that_leaves_harms_nobody() -> None:
    """A cancelled caller's item is done, and the others get their results."""
    do = Doubling()
    together = Batching(do, most=10)
    do.go_on.clear()
    leaving, staying = asyncio.create_task(together(2)), asyncio.create_task(together(4))
    while not do.batches:  # noqa: ASYNC110 - nothing tells of a batch
        await asyncio.sleep(0)
    leaving.cancel()
    do.go_on.set()
    assert await staying == 8
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_who_has_waited_too_long_is_refused() -> None:
    """A standstill leaves no queue behind that is served in vain.

    Found by loading a starved machine: every caller had left by the time its turn came.
    """
    now = 0.0

    async def stand_still(numbers: Sequence[int]) -> Sequence[int | Exception]:
        nonlocal now
        done.append(list(numbers))
        await begun.wait()
        now += 3
        return numbers

    done: list[list[int]] = []
    begun = asyncio.Event()
    together = Batching(stand_still, most=1, patience_seconds=4, monotonic=lambda: now)
    callers = [asyncio.create_task(together(number)) for number in range(4)]
    await asyncio.sleep(0)
    begun.set()
    first, second, *late = await asyncio.gather(*callers, return_exceptions=True)
    assert (first, second) == (0, 1)
    assert all(isinstance(one, UnavailableError) for one in late)
    assert done == [[0], [1]]
    assert await together(9) == 9
