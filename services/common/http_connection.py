"""One HTTP connection: uvicorn's, with an end to whatever a stranger can draw out."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.common.http_refusals import INVALID, TOO_LARGE, bad_request
from services.common.joining_transport import JoiningTransport

_LAST_REQUEST_SECONDS = 0.5
# So long, and up to half as long again, a connection is kept for its next request.
_HEAD_SECONDS = 30.0
_MAX_HEAD_BYTES = 64 * 1024
# In memory a header of two bytes is as large as one of a hundred. Twilio and proxies send about 20.
_MAX_HEADERS = 200
# Requests that wait for the answer to an earlier one, their headers, and bytes of their bodies: a
# single reading may hold thousands.
_MAX_AHEAD = 8
_MAX_HEADERS_AHEAD = 200
_MAX_BODIES_AHEAD = 64 * 1024


def _without_upgrade(line: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A head that asks for no other protocol, which a server may take it for (RFC 9110, 7.8)."""
    options = b",".join(value.lower() for name, value in headers if name == b"connection")
    kept = [(name, value) for name, value in headers if name not in (b"connection", b"upgrade")]
    kept += [
        (b"connection", option)
        for option in (b"close", b"keep-alive")
        if option in map(bytes.strip, options.split(b","))
    ]
    return b"\r\n".join([line, *(name + b": " + value for name, value in kept), b"", b""])


class _TooManyHeadersError(Exception):
    """A head has more headers than anyone needs."""


class _TooManyAheadError(Exception):
    """More waits for the answer to an earlier request than a sender may send ahead."""


def _forget(cycle: RequestResponseCycle) -> None:
    """It refers to its connection, which refers to it: only the collector, which comes seldom,
    would free one that nobody answers."""
    cycle.on_response = lambda: None


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with bounds to what a sender may take.

    uvicorn by itself

    - takes any number of connections, and of each a head of any size and any number of requests
      ahead;
    - waits for ever for a head, and for who doesn't read an answer;
    - takes the body of a request for another protocol for the next request;
    - doesn't tell who answers that the sender left if another request came behind.
    """

    _leaving = False
    _timer: asyncio.TimerHandle | None = None
    # Since when the next head is waited for; None while a request is answered.
    _waits_since: float | None = None
    # Since a head was whole, or a piece of a body came: a head, chunk extensions or trailers.
    _head_bytes = 0
    _unread_since: float | None = None
    # When the newest head was whole.
    _head_at = 0.0
    # What ends the connection behind the answers to what came before; nothing more is read.
    _last_answer: bytes | None = None
    # The request that an application answers, or has answered last.
    _running: RequestResponseCycle | None = None
    # The head of a request that asks for another protocol, as one that doesn't.
    _plain_head = b""

    def __init__(self, *args: Any, max_connections: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        # None until the first request otherwise, whatever its declaration says.
        self.headers = []

    def connection_made(  # type: ignore[override]  # as uvicorn has it
        self, transport: asyncio.Transport
    ) -> None:
        self._joining = JoiningTransport(transport)
        super().connection_made(cast(asyncio.Transport, self._joining))
        self._waits_since = self.loop.time()
        self._look()
        if len(self.connections) > self._max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """End the connections that have longest waited for their senders, else this one.

        So connections without requests, or with endless ones, and those whose answers nobody reads
        keep nobody out whose request comes at once.
        """
        all_of_them = (one for one in self.connections if isinstance(one, HttpConnection))
        waiting = [one for one in all_of_them if one._sender_since() < math.inf]
        waiting.sort(key=HttpConnection._sender_since)
        # A tenth: to look through all of them for each that comes would take too long.
        for one in waiting[: max(1, self._max_connections // 10)] or [self]:
            # It counts until the loop has seen its end, and many may be made before that.
            self.connections.discard(one)
            # Closing would wait for what isn't read.
            one.transport.abort()

    def _sender_since(self) -> float:
        """Since when it is up to the sender to ask, or to read; infinite when it isn't."""
        for since in (self._joining.closing_since, self._unread_since, self._waits_since):
            if since is not None:
                return since
        # While one waits for the answer to another it isn't the request that is long in coming.
        cycle, last = self.cycle, not self.pipeline and self._last_answer is None
        unfinished = last and cycle.more_body and not cycle.response_complete
        return self._head_at if unfinished else math.inf

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._joining.was_lost()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        while self.pipeline:
            _forget(self.pipeline.pop()[0])

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.time()
        self._joining.expect_reading()

    def resume_writing(self) -> None:
        self._unread_since = None
        self._joining.was_read()
        super().resume_writing()

    def eof_received(self) -> None:
        # uvloop would close it by itself, and wait for what isn't read.
        self.transport.close()

    def _look(self) -> None:
        since = self._waits_since
        if since is not None and self.loop.time() - since >= _HEAD_SECONDS:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(_HEAD_SECONDS / 2, self._look)

    def data_received(self, data: bytes) -> None:
        if self._last_answer is not None:
            self.flow.pause_reading()
            return
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._end_with(TOO_LARGE)
            return
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._plain_head:
                    return
                data = self._plain_head + data[upgrade.args[0] :]
                self._plain_head = b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _TooManyAheadError):
                    # Whoever sent it sends it again, as after any end (RFC 9112, 9.3.2).
                    self._end_with(b"")
                    if self.pipeline:
                        self.pipeline[0][0].keep_alive = False
                    return
                self.logger.warning(INVALID)
                too_many = isinstance(error.__context__, _TooManyHeadersError)
                self._end_with(TOO_LARGE if too_many else bad_request(INVALID))
                return

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn has it, whose own would take as long again, but so many and no more."""
        headers = self.headers
        if len(headers) >= _MAX_HEADERS:
            raise _TooManyHeadersError
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def _end_with(self, answer: bytes) -> None:
        """Answer what came last, which is no request, and close; what came before has its turn."""
        if self.pipeline and self.cycle.more_body:
            # It won't ever be whole.
            _forget(self.pipeline.popleft()[0])
        elif self._idle or self.cycle.more_body:
            if self._idle or not self.cycle.response_started:
                self.transport.write(answer)
            self.transport.close()
            return
        # Now it would be taken for the answer to a request that is good.
        self._last_answer = answer

    def _refuse_too_much_ahead(self, more: int = 0) -> None:
        """Raises _TooManyAheadError when `more` bytes of a body would make it too much."""
        ahead = [cycle for cycle, _ in self.pipeline]
        if (
            len(ahead) > _MAX_AHEAD
            or sum(len(list(cycle.scope["headers"])) for cycle in ahead) > _MAX_HEADERS_AHEAD
            or sum(len(cycle.body) for cycle in ahead) + more > _MAX_BODIES_AHEAD
        ):
            raise _TooManyAheadError

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self.pipeline:
            self._refuse_too_much_ahead(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._plain_head:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn has it, without a timer for each request: `_look` has one for them all."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:
            # While some wait, each answer would let in as many more as one reading holds.
            self.flow.resume_reading()
        if following is not None:
            self._start_asgi_task(*following)
        elif self._last_answer is not None:
            self.transport.write(self._last_answer)
            self.transport.close()
        else:
            self._waits_since = self.loop.time()
            # Nobody may have asked for it, and the next request may be long in coming.
            self.cycle.body.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """Answer whoever has just connected, or is sending the next request, before leaving.

        uvicorn closes connections without a request at once, and a request that is on its way
        then is lost.
        """
        if self._idle:
            self._leaving = True
            self.loop.call_later(_LAST_REQUEST_SECONDS, self._leave)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._waits_since = None
        self._head_at = self.loop.time()
        method = self.parser.get_method()
        asks_for_another = self.parser.should_upgrade()
        if asks_for_another and method != b"CONNECT":
            # The parser takes no body now: what follows could be another protocol.
            self._plain_head = _without_upgrade(
                b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode()),
                self.headers,
            )
            return
        super().on_headers_complete()
        if self.pipeline:
            self._refuse_too_much_ahead()
        # What comes behind the body is no header of the request (RFC 9110, 6.5.1): a proxy may
        # have handed it on unseen. Counted it still is.
        self.headers = []
        # What follows a CONNECT isn't meant for us.
        if self._leaving or asks_for_another:
            self.cycle.keep_alive = False

    @property
    def _idle(self) -> bool:
        # None until the first request, whatever its declaration says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _leave(self) -> None:
        if self._idle:
            self.transport.close()
