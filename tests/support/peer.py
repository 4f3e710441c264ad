"""A vendor's server that answers as a test says, byte by byte, to whole requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Peer:
    """A server that answers every request in one way.

    Attributes:
        requests: Heads and bodies, as they came.
        connections: How many were opened.
        asked: Set with the first request.
        left: Set when a client closes a connection before it was answered to the end.
    """

    answer: "Answer"
    base_url: str = ""
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until either side closes it."""
        self.connections += 1
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                return
            self.requests.append((head, await _body(head, reader)))
            self.asked.set()
            # A client that has its answer sends nothing before its next request.
            gone = asyncio.create_task(reader.read(1))
            answering = asyncio.ensure_future(self.answer(self, writer))
            await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.left.set()
                answering.cancel()
                return
            gone.cancel()
            await asyncio.wait({gone})
            answering.result()
            await writer.drain()
            if writer.is_closing():
                return


Answer = Callable[[Peer, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def running_peer(answer: Answer) -> AsyncIterator[Peer]:
    """Serve one while the context lasts."""
    peer = Peer(answer)
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        # Python 3.11 complains of handlers that end by being cancelled.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await peer.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def answering(
    body: bytes, *, status: str = "200 OK", content_type: str = "application/json", cut: int = 0
) -> Answer:
    """A whole answer; with `cut`, so many bytes of it are missing when the connection ends."""

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body[: len(body) - cut])
        if cut:
            writer.close()

    return answer


def streaming(
    *parts: bytes,
    content_type: str = "text/event-stream",
    begins: bool = True,
    ends: bool | None = True,
) -> Answer:
    """An answer in chunks.

    Args:
        begins: Whether its head is sent before.
        ends: Whether it has an end; None to leave that to another answer.
    """

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        if begins:
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
        for part in parts:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await writer.drain()
        if ends is False:
            await asyncio.Event().wait()
        if ends:
            writer.write(b"0\r\n\r\n")

    return answer


def dripping(content_type: str) -> Answer:
    """An answer that never ends, of which a little comes all the time."""

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: 9999\r\n\r\n"
            "".encode()
        )
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    return answer


async def silent(peer: Peer, writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


def patience(answer: Answer) -> float:
    """Seconds that a client waits for an answer: few only where it never ends.

    On a busy machine an answer takes its time, and one that is given up is another trouble.
    """
    endless = answer is silent or getattr(answer, "__qualname__", "").startswith("dripping.")
    return 1 if endless else 30


async def hanging_up(peer: Peer, writer: asyncio.StreamWriter) -> None:
    """The end of the connection."""
    writer.close()


async def _body(head: str, reader: asyncio.StreamReader) -> bytes:
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    return await reader.readexactly(int(headers.get("content-length", 0)))
