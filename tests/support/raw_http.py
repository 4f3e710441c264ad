"""HTTP byte by byte: requests as no client library would send them."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.support.edge import FORM, INCOMING, message, signature

Header = tuple[bytes, bytes]

END = b"GET /hostile/end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""A request whose answer is the last one on a connection."""

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n")


@dataclass(frozen=True)
class Raw:
    """A request of any bytes; its length is added."""

    target: bytes
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    method: bytes = b"POST"

    def encoded(self) -> bytes:
        """The request as it is sent."""
        return head(
            self.method + b" " + self.target + b" HTTP/1.1",
            (b"Host", b"x"),
            *self.headers,
            (b"Content-Length", b"%d" % len(self.body)),
        ) + (self.body)


def head(line: bytes, *headers: Header) -> bytes:
    """The head of a request."""
    return b"\r\n".join([line, *(name + b": " + value for name, value in headers), b"", b""])


def signed(sid: str, **more: str) -> Raw:
    """An inbound message as Twilio sends it."""
    parameters = message(sid, **more)
    return Raw(
        INCOMING.encode(),
        [
            (b"Content-Type", FORM.encode()),
            (b"X-Twilio-Signature", signature(INCOMING, parameters).encode()),
        ],
        urlencode(parameters).encode(),
    )


class Connection:
    """A connection that is used for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, *pieces: bytes) -> int:
        """The status of the answer; 0 when the connection ends without one.

        Args:
            pieces: The request; each is on its way before the next.
        """
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
                await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
            answer = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", answer)
            await self._reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            return 0
        return int(answer.split(b" ", 2)[1])


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection while the context is open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """All that is answered to some bytes until the server ends the connection.

    Raises:
        TimeoutError: It doesn't.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        async with asyncio.timeout(60):
            with contextlib.suppress(OSError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            with contextlib.suppress(OSError):
                while part := await reader.read(65536):
                    answer += part
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer


@dataclass(slots=True)
class Flood:
    """A connection on which more is sent than the other side may take."""

    port: int
    _socket: socket.socket | None = None

    async def send(self, data: bytes, *, seconds: float = 0.5) -> int:
        """How much of it was taken before nothing was for so long."""
        return await asyncio.to_thread(self._send, data, seconds)

    async def answers(self) -> bytes:
        """All that comes until the connection ends; also what came before it was reset."""
        return await asyncio.to_thread(self._answers)

    def _send(self, data: bytes, seconds: float) -> int:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._socket.settimeout(seconds)
        sent = 0
        with contextlib.suppress(OSError), memoryview(data) as view:
            while sent < len(data):
                sent += self._socket.send(view[sent:])
        return sent

    def _answers(self) -> bytes:
        assert self._socket is not None
        self._socket.settimeout(60)
        answer = b""
        with self._socket, contextlib.suppress(ConnectionError):
            while part := self._socket.recv(65536):
                answer += part
        return answer


def statuses(answer: bytes) -> list[int]:
    """The statuses of all answers on a connection."""
    return [int(status) for status in _STATUS.findall(answer)]


def chunked(pieces: Iterable[bytes]) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
