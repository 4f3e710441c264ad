"""A load generator that is light enough to share a core with the broker."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Result:
    """What one run saw."""

    seconds: float = 0.0
    statuses: Counter[bytes] = field(default_factory=Counter)
    measured: int = 0
    """Answers within the measured time, which leaves out the first quarter."""

    @property
    def per_second(self) -> float:
        return self.measured / self.seconds


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last one is answered."""

    def __init__(self, requests: Iterator[bytes], result: Result, ends: asyncio.Event) -> None:
        self._requests = requests
        self._result = result
        self._ends = ends
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        end = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received) if end >= 0 else None
        if length is None or len(received) < end + 4 + int(length[1]):
            self._received = received
            return
        self._received = b""
        self._result.statuses[received[9:12]] += 1
        if self._ends.is_set():
            self._transport.close()
        else:
            self._transport.write(next(self._requests))

    def connection_lost(self, error: Exception | None) -> None:
        if self._ends.is_set():
            self.done.set_result(None)
        else:
            self.done.set_exception(error or ConnectionError("the server hung up"))


async def run(port: int, requests: Iterator[bytes], *, connections: int, seconds: float) -> Result:
    """Keep `connections` busy for `seconds`, then let the open requests end."""
    loop = asyncio.get_running_loop()
    result = Result()
    ends = asyncio.Event()
    opened = [
        (await loop.create_connection(
            lambda: _Connection(requests, result, ends), "127.0.0.1", port
        ))[1]
        for _ in range(connections)
    ]  # fmt: skip
    finished = asyncio.gather(*(connection.done for connection in opened))
    await asyncio.wait([finished], timeout=seconds / 4)
    start, before = time.perf_counter(), result.statuses.total()
    await asyncio.wait([finished], timeout=seconds * 3 / 4)
    result.seconds = time.perf_counter() - start
    result.measured = result.statuses.total() - before
    ends.set()
    await finished
    return result
