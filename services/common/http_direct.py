"""Requests that are read at once and answered later, without a task for each.

uvicorn makes a task of each request, in which an ASGI application asks for the body, waits, and
sends an answer in two parts. For a webhook that is as much work as verifying it. Who can say at
once what is to be done with a request, and is told later that it is done, needs none of it.
"""

import asyncio
from typing import Any, Protocol

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.common.http_connection import HttpConnection

_WHOLE_SECONDS = 0.1
"""Whose body takes longer gets a task, which can wait."""


class WholeRequest:
    """A request that is all there; `answer` or `hand_on` is to be called once, at any time."""

    __slots__ = ("_connection", "_cycle", "scope")

    def __init__(self, connection: "DirectConnection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self.scope: Scope = cycle.scope  # type: ignore[assignment]  # uvicorn has a type of its own

    @property
    def body(self) -> bytes:
        """A copy, which isn't kept: the request may wait for long."""
        return bytes(self._cycle.body)

    def answer(self, head: bytes, body: bytes) -> None:
        """Send an answer; nothing happens when the sender is gone.

        Args:
            head: Status line and headers, Content-Length among them, each with its end of line.
        """
        self._connection.answer(self._cycle, head, body)

    def hand_on(self, app: ASGIApp) -> None:
        """Have an application answer, which gets the body as of any request."""
        self._connection.start(self._cycle, app)


class Taker(Protocol):
    """Who takes requests of some kind without a task for each."""

    def takes(self, scope: Scope) -> bool:
        """Whether a request is of that kind; its body may not be there."""
        ...

    def take(self, request: WholeRequest) -> None:
        """See to it that the request is answered."""
        ...


class DirectConnection(HttpConnection):
    """A connection whose requests go to `taker`, if it takes them and they don't take long."""

    # The request that is being read, and isn't begun before it is clear whether it is whole.
    _open: RequestResponseCycle | None = None
    _open_timer: asyncio.TimerHandle | None = None
    _reading = False

    def __init__(self, *args: Any, taker: Taker, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taker = taker

    def data_received(self, data: bytes) -> None:
        self._reading = True
        try:
            super().data_received(data)
        finally:
            self._reading = False
        if self._open is None:
            return
        if self.flow.read_paused:
            # No more is read of a body as large as that until somebody asks for it.
            self._start_open()
        elif self._open_timer is None:
            self._open_timer = self.loop.call_later(_WHOLE_SECONDS, self._start_open)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if cycle := self._opened():
            self._taker.take(WholeRequest(self, cycle))

    def connection_lost(self, exc: Exception | None) -> None:
        self._start_open()
        super().connection_lost(exc)

    def _opened(self) -> RequestResponseCycle | None:
        cycle, self._open = self._open, None
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None
        return cycle

    def _start_open(self) -> None:
        if cycle := self._opened():
            self.start(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Who doesn't read the answers must be waited for.
        direct = not self.flow.write_paused and self._taker.takes(
            cycle.scope  # type: ignore[arg-type]  # uvicorn has a type of its own
        )
        if direct and not cycle.more_body:
            self._taker.take(WholeRequest(self, cycle))
        elif direct and self._reading and not cycle.waiting_for_100_continue:
            self._open = cycle
        else:
            self.start(cycle, app)

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have an ASGI application answer a request."""
        super()._start_asgi_task(cycle, app)

    def answer(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        """Answer a request as `WholeRequest.answer` says."""
        # It refers to this connection, which refers to it.
        cycle.on_response = _nothing
        if cycle.disconnected or self.transport.is_closing():
            return
        content = [head]
        for name, value in self.server_state.default_headers:
            content += (name, b": ", value, b"\r\n")
        content += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(content))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def _nothing() -> None:
    """Stands where something is called."""
