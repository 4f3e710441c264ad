"""Ways to treat a client badly that HTTP has no words for: silence and broken connections."""

import asyncio
import socket
import struct

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "sandbox.connection"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, on, 0 seconds


class BreakableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also lets the application at the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


class NoResponse(Response):
    """Answers nothing on a connection that is going away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _disconnected(receive)


def reset(request: Request) -> NoResponse:
    """Drop the connection: the client sees "connection reset by peer"."""
    transport = _transport(request)
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
    return NoResponse()


def cut(request: Request) -> NoResponse:
    """End the connection after what was sent so far, whether or not the answer is complete."""
    _transport(request).close()
    return NoResponse()


async def hang(request: Request, closing: asyncio.Event) -> NoResponse:
    """Stay silent until the client gives up or the sandbox stops."""
    stopped = asyncio.create_task(closing.wait())
    left = asyncio.create_task(_disconnected(request.receive))
    await asyncio.wait({stopped, left}, return_when=asyncio.FIRST_COMPLETED)
    gone = left.done()
    for task in (stopped, left):
        task.cancel()
    return NoResponse() if gone else reset(request)


async def stays(request: Request, seconds: float) -> bool:
    """Let so much time go by; False, at once, when the client gives up."""
    left = asyncio.create_task(_disconnected(request.receive))
    await asyncio.wait({left}, timeout=seconds)
    gone = left.done()
    left.cancel()
    return not gone


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(request: Request) -> asyncio.Transport:
    transport = request.scope["extensions"][_EXTENSION]["transport"]
    assert isinstance(transport, asyncio.Transport)  # noqa: S101 - ours, and for the type checker.
    return transport
