"""What comes at one moment is taken in several turns of the loop."""

import asyncio

from services.webhook.pace import Pace


async def taken(pace: Pace, count: int) -> list[list[int]]:
    """Who went on in which turn of the loop, of so many that come at one moment."""
    turns: list[list[int]] = [[]]

    async def come(number: int) -> None:
        await pace.turn()
        turns[-1].append(number)

    tasks = [asyncio.create_task(come(number)) for number in range(count)]
    while not all(task.done() for task in tasks):
        turns.append([])
        await asyncio.sleep(0)
    return [turn for turn in turns if turn]


async def test_a_burst_is_taken_by_halves_in_its_order() -> None:
    """Some at once, then half of those that wait; nobody overtakes."""
    turns = await taken(Pace(4), 100)
    assert [len(turn) for turn in turns] == [4, 48, 24, 12, 6, 4, 2]
    assert [number for turn in turns for number in turn] == list(range(100))


async def test_a_few_go_on_at_once() -> None:
    """As many as may wait for nothing, burst after burst."""
    pace = Pace(4)
    for _ in range(3):
        assert await taken(pace, 4) == [[0, 1, 2, 3]]
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_comes_later_goes_on_later() -> None:
    """While some wait, one who comes now comes behind them."""
    pace = Pace(1)
    went: list[str] = []

    async def come(name: str) -> None:
        await pace.turn()
        went.append(name)

    first = [asyncio.create_task(come(name)) for name in "abc"]
    await asyncio.sleep(0)
    late = asyncio.create_task(come("late"))
    await asyncio.gather(*first, late)
    assert went == ["a", "b", "c", "late"]


async def test_who_is_cancelled_holds_up_nobody() -> None:
    """The others go on."""
    pace = Pace(1)
    tasks = [asyncio.create_task(pace.turn()) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks, timeout=10)
    assert [task.cancelled() for task in tasks] == [False, True, True, False]
