"""Taking what comes at one moment in several turns of the event loop."""

import asyncio
from collections import deque


class Pace:
    """Lets some tasks go on now, and of the others half at each further turn of the loop.

    The loop reads all that has arrived before anything it was asked to send leaves. Without this
    every webhook of a burst is verified before the first is on its way to the journal, and then
    there is nothing to do until the journal answers.

    Args:
        at_once: So many at least go on in one turn.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def turn(self) -> None:
        """Wait for one's turn; nobody overtakes."""
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._next_turn, loop)
        if self._left:
            self._left -= 1
            return
        future = loop.create_future()
        self._waiting.append(future)
        await future

    def _next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        allowed = max(self._at_once, len(self._waiting) // 2)
        going = min(allowed, len(self._waiting))
        for _ in range(going):
            future = self._waiting.popleft()
            # Whoever was cancelled meanwhile doesn't wait any more.
            if not future.done():
                future.set_result(None)
        self._left = allowed - going
        self._scheduled = going > 0
        if self._scheduled:
            loop.call_soon(self._next_turn, loop)
