"""Doing in one transaction what many callers ask for at one moment."""

import asyncio
import bisect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from services.common.errors import UnavailableError
from services.common.tracing import detached

T = TypeVar("T")
R = TypeVar("R")


class Batching(Generic[T, R]):
    """Collects what comes while a batch is under way, and does it together as the next batch.

    One caller alone waits for nobody. A commit costs the same for one as for many.

    Args:
        do: Does a batch in one transaction; the result or the error of each, in order. When it
            raises nothing was done.
        most: So many make one batch at most.
        patience_seconds: Whoever has waited for so long is refused. They will have left before
            their turn comes, and ask again: serving them in vain, one after the other, would leave
            everybody behind them waiting in vain, too.
        monotonic: Clock in seconds.
    """

    def __init__(
        self,
        do: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        most: int,
        patience_seconds: float = 4.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._do = do
        self._most = most
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._since: list[float] = []
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """The result of one, once its batch is committed; raises its error.

        Raises:
            UnavailableError: Its turn didn't come in time; nothing was done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        self._since.append(self._monotonic())
        if self._work is None:
            self._work = loop.create_task(self._work_off(), context=detached())
        return await future

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                self._refuse_stale()
                batch = self._waiting[: self._most]
                del self._waiting[: self._most], self._since[: self._most]
                if batch:
                    await self._do_batch(batch)
        finally:
            self._work = None

    def _refuse_stale(self) -> None:
        stale = bisect.bisect_left(self._since, self._monotonic() - self._patience_seconds)
        for _, future in self._waiting[:stale]:
            if not future.done():
                future.set_exception(UnavailableError("too much is asked for, try again shortly"))
        del self._waiting[:stale], self._since[:stale]

    async def _do_batch(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._do([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - It is the callers' error, and theirs to raise.
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                # One of them is at fault; the others must not suffer.
                for one in batch:
                    await self._do_batch([one])
                return
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            # A caller that was cancelled waits no more.
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
