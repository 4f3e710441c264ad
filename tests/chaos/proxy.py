"""A TCP proxy between two parts, whose network can be made slow, cut, reset or silent."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Target = int | Path
"""A port of this machine, or a Unix socket."""

_CHUNK = 65536
_SHREDDED = 96
"""So many bytes of each piece go one by one; the rest would take this machine's whole time."""


@dataclass(frozen=True)
class Network:
    """How the network is.

    Attributes:
        delay_seconds: Each piece is held back by up to so long.
        shred: Pieces begin byte by byte.
        ends_after: Each connection ends after up to so many bytes; 0 for never.
        reset: How it ends: by RST, or in order.
        silent: Connections stay open, and nothing passes.
        refuses: No connection stays open.
    """

    delay_seconds: float = 0
    shred: bool = False
    ends_after: int = 0
    reset: bool = False
    silent: bool = False
    refuses: bool = False


SOUND = Network()


class Proxy:
    """Listens on a port, and passes connections on to the first of several targets that answers.

    Begins with another target each time, as a balancer in front of replicas does.
    """

    def __init__(self, port: int, targets: Sequence[Target], chance: random.Random) -> None:
        self.port = port
        self.network = SOUND
        self._targets = list(targets)
        self._chance = chance
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._turn = 0
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        await self.drop()

    async def drop(self) -> None:
        """End every connection."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def become(self, network: Network) -> None:
        """Change the network, also for connections that are open."""
        self.network = network
        self._changed.set()
        self._changed = asyncio.Event()
        if network.refuses:
            await self.drop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # Python 3.11 complains of handlers that end by being cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(reader, writer)
        self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = [writer]
        try:
            if self.network.refuses or (far := await self._connect()) is None:
                return
            far_reader, far_writer = far
            ours.append(far_writer)
            for one in ours:
                peer = one.get_extra_info("socket")
                if peer.family != socket.AF_UNIX:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer)),
                asyncio.create_task(self._pump(far_reader, writer)),
            ]
            try:
                # Either side's end is the end of both: what is on its way then is lost, as on a
                # network. A side that only stops writing waits for the other.
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                if pumps[0] in done and pumps[0].exception() is None:
                    await asyncio.wait([pumps[1]], timeout=5)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for one in ours:
                if self.network.reset or self.network.refuses:
                    _reset(one)
                one.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        first = self._turn % len(self._targets)
        for target in self._targets[first:] + self._targets[:first]:
            with contextlib.suppress(OSError):
                if isinstance(target, Path):
                    return await asyncio.open_unix_connection(target)
                return await asyncio.open_connection("127.0.0.1", target)
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = None
        while piece := await reader.read(_CHUNK):
            network = self.network
            while self.network.silent:
                await self._changed.wait()
            if network.delay_seconds:
                await asyncio.sleep(self._chance.uniform(0, network.delay_seconds))
            if network.shred:
                for byte in piece[:_SHREDDED]:
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(0)
                piece = piece[_SHREDDED:]
            if network.ends_after:
                if left is None:
                    left = self._chance.randint(1, network.ends_after)
                writer.write(piece[:left])
                left -= len(piece)
                if left <= 0:
                    raise ConnectionResetError
            else:
                left = None
                writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
