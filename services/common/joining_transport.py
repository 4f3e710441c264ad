"""Writing an HTTP answer to its connection."""

import asyncio
from typing import Any

UNREAD_SECONDS = 30.0
"""Who takes nothing of an answer for so long gets no more of it."""


class JoiningTransport:
    """Sends an answer's head together with the first piece of its body, and ends when told to.

    uvicorn writes them apart and uvloop sends each write at once: the second system call and the
    client's second wake-up were a tenth of a webhook's time. And closing waits for what isn't read,
    for ever.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._look: asyncio.TimerHandle | None = None
        self._lost = False
        # Asked at every answer; found here, `__getattr__` isn't needed for it.
        self.is_closing = transport.is_closing
        self.closing_since: float | None = None

    def write(self, data: bytes) -> None:
        # uvicorn knows only of its newest request that nobody waits for the answer, and uvloop
        # raises: each would be a traceback in the log.
        if self.is_closing():
            return
        if self._head:
            data = self._head + data
            self._head = b""
        elif data.endswith(b"\r\n\r\n"):
            self._head = data
            # The body may be long in coming.
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        # uvicorn also closes what is lost.
        if self.closing_since is None and not self._lost:
            self.closing_since = self._loop.time()
            self.expect_reading()

    def expect_reading(self) -> None:
        """Abort the connection once nothing of what waits was taken for `UNREAD_SECONDS`."""
        if self._look is None:
            self._look_later(self._transport.get_write_buffer_size())

    def was_read(self) -> None:
        """Told that nothing waits any more."""
        if self._look is not None and self.closing_since is None:
            self._look.cancel()
            self._look = None

    def was_lost(self) -> None:
        """Told that there is no connection any more."""
        self._lost = True
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _look_later(self, waiting: int) -> None:
        self._look = self._loop.call_later(UNREAD_SECONDS, self._look_again, waiting)

    def _look_again(self, before: int) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting < before:
            self._look_later(waiting)
        else:
            self._transport.abort()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            if not self.is_closing():
                self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
