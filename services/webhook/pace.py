"""Taking what comes at one moment in several turns of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_TURNS = 3
"""Of the loop from one part to the next. A commit that the last item of a part has caused takes as
many to be on its way: it is started, makes its message, and has it written."""


class Pace(Generic[T]):
    """Takes some items now, and of the others half every few turns of the loop.

    The loop reads all that has arrived before anything it was asked to send leaves. Without this
    every webhook of a burst is verified before the first is on its way to the journal, and then
    there is nothing to do until the journal answers.

    Args:
        take: What is to be done with each.
        at_once: So many at least are taken in one turn.
    """

    def __init__(self, take: Callable[[T], None], at_once: int) -> None:
        self._take = take
        self._at_once = at_once
        self._waiting: deque[T] = deque()
        self._scheduled = False

    def put(self, item: T) -> None:
        """Have an item taken in its turn; nobody overtakes."""
        self._waiting.append(item)
        if not self._scheduled:
            self._scheduled = True
            self._take_after(1)

    def _take_after(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns > 1:
            loop.call_soon(self._take_after, turns - 1)
        else:
            loop.call_soon(self._take_some)

    def _take_some(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(min(len(waiting), max(self._at_once, len(waiting) // 2))):
                self._take(waiting.popleft())
        finally:
            # Whatever went wrong with one, the others have their turn.
            self._scheduled = bool(waiting)
            if waiting:
                self._take_after(_TURNS)
