"""One time limit shared by many short waits."""

import asyncio
from types import TracebackType


class Deadline:
    """A context that ends in `TimeoutError` when it is open for longer than `seconds`.

    As `asyncio.timeout`, which sets up and cancels a timer for each use and thereby costs a tenth
    of a webhook. Here one timer looks after all uses, so that one may take up to a quarter longer.
    One task may be in it only once at a time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # In the order of their ends, because all last equally long.
        self._ends: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        loop = task.get_loop()
        self._ends[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds / 4, self._sweep, loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        if self._ends.pop(task, None) is None and task in self._late:
            self._late.discard(task)
            # Someone else may have cancelled the task too; that must go on.
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = []
        for task, end in self._ends.items():
            if end > now:
                break
            late.append(task)
        for task in late:
            del self._ends[task]
            self._late.add(task)
            task.cancel()
        self._timer = loop.call_later(self._seconds / 4, self._sweep, loop) if self._ends else None
