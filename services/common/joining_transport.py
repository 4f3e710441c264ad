"""Writing an HTTP answer to its connection."""

import asyncio
from typing import Any

UNREAD_SECONDS = 30.0
"""Who takes nothing of an answer for so long gets no more of it."""


class JoiningTransport:
    """Sends an answer's head together with the first piece of its body.

    uvicorn writes them apart and uvloop sends each write at once: the second system call and the
    client's second wake-up were a tenth of a webhook's time.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._end: asyncio.TimerHandle | None = None
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
        if self._end is None:
            # Closing waits for what isn't read, for ever.
            self._end = self._loop.call_later(UNREAD_SECONDS, self._transport.abort)
            self.closing_since = self._loop.time()

    def ended(self) -> None:
        """Told that the connection is lost."""
        if self._end is not None:
            self._end.cancel()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            if not self.is_closing():
                self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
