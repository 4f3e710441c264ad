"""What comes at one moment is taken in several turns of the loop."""

import asyncio

from services.webhook.pace import Pace


async def taken(pace: Pace[int], turns: list[list[int]], count: int) -> list[list[int]]:
    """What was taken in which turn of the loop, of so much that comes at one moment."""
    for number in range(count):
        pace.put(number)
    while sum(map(len, turns)) < count:
        turns.append([])
        await asyncio.sleep(0)
    return [turn for turn in turns if turn]


def pacing(at_once: int) -> tuple[Pace[int], list[list[int]]]:
    """A pace, and the turns of the loop with what it took in each."""
    turns: list[list[int]] = [[]]
    return Pace(lambda number: turns[-1].append(number), at_once), turns


async def test_a_burst_is_taken_by_halves_in_its_order() -> None:
    """Some at once, or half of those that wait; nobody overtakes."""
    turns = await taken(*pacing(4), 100)
    assert [len(turn) for turn in turns] == [50, 25, 12, 6, 4, 3]
    assert [number for turn in turns for number in turn] == list(range(100))


async def test_a_few_are_taken_at_once() -> None:
    """As many as may wait for nothing, burst after burst."""
    for _ in range(3):
        pace, turns = pacing(4)
        assert await taken(pace, turns, 4) == [[0, 1, 2, 3]]


async def test_the_loop_turns_in_between() -> None:
    """What the first led to leaves before the next are taken."""
    pace, turns = pacing(2)
    for number in range(4):
        pace.put(number)
    for _ in range(8):
        turns.append([])
        await asyncio.sleep(0)
    assert turns == [[], [0, 1], [], [], [2, 3], [], [], [], []]


async def test_who_comes_later_is_taken_later() -> None:
    """While some wait, one who comes now comes behind them."""
    pace, turns = pacing(1)
    for number in range(3):
        pace.put(number)
    await asyncio.sleep(0)
    pace.put(9)
    for _ in range(20):
        await asyncio.sleep(0)
    assert turns[0] == [0, 1, 2, 9]


async def test_one_that_fails_holds_up_nobody() -> None:
    """Neither those that wait nor those that come later."""
    went: list[int] = []
    failures: list[dict[str, object]] = []

    def take(number: int) -> None:
        if number == 1:
            raise ValueError(number)
        went.append(number)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    pace = Pace(take, 4)
    for number in range(4):
        pace.put(number)
    for _ in range(3):
        await asyncio.sleep(0)
    pace.put(4)
    await asyncio.sleep(0)
    assert (went, len(failures)) == ([0, 2, 3, 4], 1)
