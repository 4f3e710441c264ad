"""Serving an ASGI application until a service is told to stop."""

import asyncio
import contextlib
import functools
import logging
import math
import resource
import socket
import time
from collections.abc import AsyncIterator, Generator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.common.refusals import LogLimiter

_LAST_ACCEPT_SECONDS = 0.1
_LAST_REQUEST_SECONDS = 0.5
# So long, and up to half as long again, a connection is kept for its next request.
_HEAD_SECONDS = 30.0
_MAX_HEAD_BYTES = 64 * 1024
# In memory a header of two bytes is as large as one of a hundred. Twilio and proxies send about 20.
_MAX_HEADERS = 200
# What a process opens beside connections: the broker, databases, files.
_OWN_FILES = 100
# Who takes nothing of an answer for so long gets no more of it.
_UNREAD_SECONDS = 30.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _Server(uvicorn.Server):
    """The service's own lifecycle handles signals, so that it can order the shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in who stands before the door, then leave.

        Connections that the system has made and that nobody has accepted yet would be reset with
        the listening socket. With its queue shut, whoever comes now tries again, and is refused
        then.
        """
        for listener in sockets or []:
            listener.listen(0)
        await asyncio.sleep(_LAST_ACCEPT_SECONDS)
        await super().shutdown(sockets)


class _JoiningTransport:
    """Sends an answer's head together with the first piece of its body.

    uvicorn writes them apart and uvloop sends each write at once: the second system call and the
    client's second wake-up were a tenth of a webhook's time.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""
        # Asked at every answer; found here, `__getattr__` isn't needed for it.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
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

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _TooManyHeadersError(Exception):
    """A head has more headers than anyone needs."""


class _Seldom(logging.Filter):
    """Lets one of uvicorn's warnings through at a time: strangers cause them by each request."""

    def __init__(self) -> None:
        super().__init__()
        self._limiter = LogLimiter(10.0, time.monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        held_back = self._limiter.suppressed(str(record.msg))
        if held_back:
            record.msg = f"{record.msg} ({held_back} more were held back)"
        return held_back is not None


class _Protocol(HttpToolsProtocol):
    """uvicorn's, which by itself takes any number of connections, and of each a head of any size,
    and waits for it, and for who doesn't read an answer, for ever.
    """

    def __init__(self, *args: Any, max_connections: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        # None until the first request otherwise, whatever its declaration says.
        self.headers = []

    _leaving = False
    _timer: asyncio.TimerHandle | None = None
    # Since when the next head is waited for; None while a request is answered.
    _waits_since: float | None = None
    # Since a head was whole, or a piece of a body came: a head, chunk extensions or trailers.
    _head_bytes = 0
    _unread: asyncio.TimerHandle | None = None
    # When the newest head was whole.
    _head_at = 0.0

    def connection_made(  # type: ignore[override]  # as uvicorn has it
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(cast(asyncio.Transport, _JoiningTransport(transport)))
        self._waits_since = self.loop.time()
        self._look()
        if len(self.connections) > self._max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection whose request has been longest in coming, else this one.

        So connections without requests, or with endless ones, keep nobody out whose request
        comes at once.
        """
        coming = [one for one in self.connections if isinstance(one, _Protocol)]
        last = min(coming, key=_Protocol._coming_since, default=self)
        if last._coming_since() == math.inf:
            last = self
        # It counts until the loop has seen its end, and many may be made before that.
        self.connections.discard(last)
        last.transport.close()

    def _coming_since(self) -> float:
        """When the wait for a request began that isn't whole yet; infinite when it is."""
        if self._waits_since is not None:
            return self._waits_since
        unfinished = self.cycle.more_body and not self.cycle.response_complete
        return self._head_at if unfinished else math.inf

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Closing would wait for what isn't read.
        self._unread = self.loop.call_later(_UNREAD_SECONDS, self._abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def _abort(self) -> None:
        self.transport.abort()

    def _look(self) -> None:
        since = self._waits_since
        if since is not None and self.loop.time() - since >= _HEAD_SECONDS:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(_HEAD_SECONDS / 2, self._look)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse_head()
            return
        self._head_bytes += len(data)
        super().data_received(data)
        # Here for a head that isn't whole, and for trailers.
        if self._has_too_many_headers:
            self._refuse_head()

    def send_400_response(self, msg: str) -> None:
        if self._has_too_many_headers:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    @property
    def _has_too_many_headers(self) -> bool:
        return len(self.headers) > _MAX_HEADERS

    def _refuse_head(self) -> None:
        if self._idle:
            self.transport.write(_TOO_LARGE)
        self.transport.close()
        if self._has_too_many_headers:
            # The collector may be long in coming for what a connection leaves.
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """As uvicorn has it, without a timer for each request: `_look` has one for them all."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._waits_since = self.loop.time()

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
        if self._has_too_many_headers:
            raise _TooManyHeadersError
        self._head_bytes = 0
        self._waits_since = None
        self._head_at = self.loop.time()
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    @property
    def _idle(self) -> bool:
        # None until the first request, whatever its declaration says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _leave(self) -> None:
        if self._idle:
            self.transport.close()


def behind_proxies(app: ASGIApp, trusted: str) -> ASGIApp:
    """`app` with the sender's address in its scope, instead of its proxy's.

    Args:
        trusted: Comma-separated addresses whose `X-Forwarded-For` is believed.
    """
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))


def is_length_within(content_length: bytes, most: int) -> bool:
    """Whether a Content-Length is one, and not greater than `most`."""
    # Python refuses to read thousands of digits, be they zeros.
    return content_length.isdigit() and len(content_length) < 10 and int(content_length) <= most


@contextlib.asynccontextmanager
async def serving_http(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    drain_seconds: int = 20,
    max_connections: int = 1000,
) -> AsyncIterator[int]:
    """Serve `app` while the context is open; yields the port (of use when `port` is 0).

    On leaving, no new connection is accepted and open requests get `drain_seconds` to end. So do
    those that come within half a second on connections that are open.
    Where the sender's address matters, the application is wrapped in `behind_proxies`.

    Args:
        max_connections: Beyond so many the one whose request has been longest in coming is closed.

    Raises:
        OSError: The port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        # Inherited by every connection. asyncio sets it only on sockets it made itself, and
        # without it an answer in two parts waits 40 ms for the peer's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            http=cast(
                Any, functools.partial(_Protocol, max_connections=_room_for(max_connections))
            ),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=drain_seconds,
        )
        server = _Server(config)
        uvicorns, seldom = logging.getLogger("uvicorn.error"), _Seldom()
        uvicorns.addFilter(seldom)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                if task.done():
                    await task
                    raise RuntimeError("the application did not start; the log says why")
                await asyncio.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
            uvicorns.removeFilter(seldom)


def _room_for(connections: int) -> int:
    """How many connections the system allows beside the process's own files.

    The limit on both is raised where it may be: it often is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - _OWN_FILES)
