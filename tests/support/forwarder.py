"""A way to PostgreSQL that can be cut or blocked, while others go on using the server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

from tests.support.ports import free_port


class Forwarder:
    """Passes TCP connections on to PostgreSQL's socket."""

    def __init__(self, socket_url: str) -> None:
        parts = urlsplit(socket_url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._port = free_port()
        self.url = f"postgresql://{parts.username}@127.0.0.1:{self._port}{parts.path}"
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._cut = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """Cut every connection, and take no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut.set()
        await asyncio.gather(*self._passing)
        self._cut.clear()

    def block(self) -> None:
        """Connections stay open, and nothing passes."""
        self._open.clear()

    def unblock(self) -> None:
        """What was held up passes."""
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        there, back = await asyncio.open_unix_connection(self._socket)
        ways = [
            asyncio.create_task(self._pass(reader, back)),
            asyncio.create_task(self._pass(there, writer)),
        ]
        ends = [*ways, asyncio.create_task(self._cut.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        for one in (writer, back):
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()
        self._passing.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def forwarding(socket_url: str) -> AsyncIterator[Forwarder]:
    """A forwarder, stopped afterwards."""
    forwarder = Forwarder(socket_url)
    await forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.unblock()
        await forwarder.stop()
