"""Serving an ASGI application until a service is told to stop."""

import asyncio
import contextlib
import functools
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Generator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from services.common.http_connection import HttpConnection
from services.common.http_direct import DirectConnection, Taker
from services.common.refusals import LogLimiter

_LAST_ACCEPT_SECONDS = 0.1
# What a process opens beside connections: the broker, databases, files.
_OWN_FILES = 100
_UNSENT_BYTES = 128 * 1024


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


def behind_proxies(app: ASGIApp, trusted: str) -> ASGIApp:
    """`app` with the sender's address in its scope, instead of its proxy's.

    Args:
        trusted: Comma-separated addresses whose `X-Forwarded-For` is believed.
    """
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))


@contextlib.asynccontextmanager
async def serving_http(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    drain_seconds: int = 20,
    max_connections: int = 1000,
    taker: Taker | None = None,
) -> AsyncIterator[int]:
    """Serve `app` while the context is open; yields the port (of use when `port` is 0).

    On leaving, no new connection is accepted and open requests get `drain_seconds` to end. So do
    those that come within half a second on connections that are open.
    Where the sender's address matters, the application is wrapped in `behind_proxies`.

    Args:
        max_connections: Beyond so many a tenth of them is closed, those whose requests have been
            longest in coming.
        taker: Gets the requests that it takes instead of `app`, once they are whole.

    Raises:
        OSError: The port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        # Inherited by every connection. asyncio sets it only on sockets it made itself, and
        # without it an answer in two parts waits 40 ms for the peer's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Likewise. Otherwise we learn that a slow reader reads only once it has taken a third of
        # what the system holds, some megabytes.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        room = _room_for(max_connections)
        connection = (
            functools.partial(HttpConnection, max_connections=room)
            if taker is None
            else functools.partial(DirectConnection, max_connections=room, taker=taker)
        )
        config = uvicorn.Config(
            app,
            http=cast(Any, connection),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=drain_seconds,
        )
        server = _Server(config)
        server_log, limit = logging.getLogger("uvicorn.error"), _Seldom()
        server_log.addFilter(limit)
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
            server_log.removeFilter(limit)


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
