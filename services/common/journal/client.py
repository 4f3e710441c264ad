"""The NATS client, with what nats-py leaves open closed."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from nats.aio.client import Client, Srv
from nats.aio.msg import Msg

_CANCEL_SECONDS = 0.1


class NatsClient(Client):
    """nats-py's client, of which nothing is left once it is closed, whatever it was doing.

    nats-py 2.16 forgets the connection of an attempt that failed after it was made, as one to a
    frozen server does. And one that is closed while it connects may be connected afterwards, or
    fail for what it could not send any more.
    """

    async def close(self) -> None:
        """Close for good; may be called at any moment, and again."""
        await _ended(self._reconnection_task)
        if not self.is_connected:
            await self._let_go()
            # There is no way any more for what waits to be sent.
            self._transport = None
        if self._flush_queue is None:
            # It was never told to connect, and nats-py has nothing that could be closed.
            self._status = Client.CLOSED
            return
        try:
            await super().close()
        except OSError:
            # The connection broke just now. What was to be sent is gone, so it isn't tried again.
            self._status = Client.DISCONNECTED
            await super().close()
        await self._let_go()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109  # As nats-py has it.
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Ask, and end when cancelled.

        nats-py waits with `asyncio.wait_for`, and that of Python 3.11 forgets a cancellation that
        comes together with the answer: an endless loop would go on when its service is stopped
        (https://github.com/python/cpython/issues/86296).

        Raises:
            nats.errors.Error: There was no answer in time, or nobody to give one.
            OSError: The connection is broken.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            return await super().request(subject, payload, timeout, old_style, headers)
        finally:
            if task and task.cancelling() > before:
                raise asyncio.CancelledError

    async def _process_pong(self) -> None:
        # nats-py's reading ends with an error when whoever asked for this has given up waiting,
        # and then nothing is heard until its pings have gone unanswered.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # NATS takes any bytes for a subject, and nats-py's reading ends with those that aren't
        # UTF-8: one such event would be delivered again and again, and nothing after it.
        readable = subject.decode(errors="replace").encode()
        message: Msg = super()._build_message(sid, readable, reply, data, headers)
        return message

    async def _connect_to_server(self, s: Srv) -> None:
        await self._let_go()
        await super()._connect_to_server(s)

    async def _let_go(self) -> None:
        """End what an attempt to connect has begun."""
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            await _ended(task)
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py has left it out
            # Not until it is closed: whoever was cancelled while waiting for that has cancelled it
            # for all others.
            await asyncio.sleep(0)


async def cancellable(work: Coroutine[Any, Any, None]) -> None:
    """Run what connects, so that a cancellation ends it: the client goes on after some."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        await _ended(task)
    await task


async def _ended(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task until it has ended: some of the client's take that for a failed attempt."""
    while task is not None and task is not asyncio.current_task() and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_SECONDS)
