"""A caller of gRPC that makes no room for answers, as no client of gRPC's does."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from google.protobuf.message import Message

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_NO_WINDOW = struct.pack(">HI", 4, 0)


class Unreading:
    """One connection of HTTP/2 whose streams have a window of nothing."""

    def __init__(self, writer: asyncio.StreamWriter, token: str) -> None:
        self._writer = writer
        self._token = token
        self._stream = 1
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, _NO_WINDOW))

    async def call(self, method: str, request: Message) -> None:
        """Ask; `method` is the full path."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            "authorization": f"Bearer {self._token}",
        }
        head = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        body = request.SerializeToString()
        self._writer.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, head)
            + _frame(_DATA, _END_STREAM, self._stream, struct.pack(">BI", 0, len(body)) + body)
        )
        self._stream += 2
        await self._writer.drain()


@contextlib.asynccontextmanager
async def unreading(port: int, token: str) -> AsyncIterator[Unreading]:
    """A connection, closed afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taking = asyncio.create_task(reader.read())
    try:
        yield Unreading(writer, token)
    finally:
        writer.close()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    assert len(value) < 127  # Longer ones have a length of several bytes.
    return bytes([len(value)]) + value.encode()
