"""Serving an ASGI application until a service is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    """The service's own lifecycle handles signals, so that it can order the shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def serving_http(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    trusted_proxies: str = "127.0.0.1",
    drain_seconds: int = 20,
) -> AsyncIterator[int]:
    """Serve `app` while the context is open; yields the port (of use when `port` is 0).

    On leaving, no new connection is accepted and open requests get `drain_seconds` to end.

    Args:
        trusted_proxies: Comma-separated addresses whose `X-Forwarded-For` names the sender.

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
            access_log=False,
            log_config=None,
            server_header=False,
            forwarded_allow_ips=trusted_proxies,
            timeout_graceful_shutdown=drain_seconds,
            timeout_keep_alive=30,
        )
        server = _Server(config)
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
