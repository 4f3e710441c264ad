"""A server that answers HTTP as nobody should, byte by byte."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Hostile", asyncio.StreamWriter], Any]


@dataclass
class Hostile:
    """A server that answers every request in one way, and keeps what it was sent."""

    answer: Answer
    base_url: str = ""
    requests: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def was_asked(self) -> bool:
        """Whether a request has come."""
        return bool(self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request."""
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.answer(self, writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def hostile(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Hostile]:
    """Serve one while the context lasts."""
    host = Hostile(answer)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await host.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host.base_url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in host.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def head(status: str, *headers: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


async def file(host: Hostile, writer: asyncio.StreamWriter) -> None:
    """A small picture."""
    writer.write(
        head("200 OK", "Content-Type: image/png; charset=x", "Content-Length: 4") + b"data"
    )


async def endless(host: Hostile, writer: asyncio.StreamWriter) -> None:
    """A picture without an end."""
    writer.write(head("200 OK", "Content-Type: image/png", "Connection: close"))
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def slow_body(host: Hostile, writer: asyncio.StreamWriter) -> None:
    """A body that comes byte by byte, and never ends."""
    writer.write(head("200 OK", "Content-Length: 1000"))
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


async def garbage(host: Hostile, writer: asyncio.StreamWriter) -> None:
    """No HTTP."""
    writer.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")


def sends_to(address: str) -> Answer:
    """An answer that redirects; "{here}" is the server itself."""

    async def redirect(host: Hostile, writer: asyncio.StreamWriter) -> None:
        location = address.replace("{here}", host.base_url)
        writer.write(head("307 Temporary Redirect", f"Location: {location}", "Content-Length: 0"))

    return redirect


def status(code: str) -> Answer:
    """An answer without a file."""

    async def refuse(host: Hostile, writer: asyncio.StreamWriter) -> None:
        writer.write(head(code, "Content-Length: 0"))

    return refuse
