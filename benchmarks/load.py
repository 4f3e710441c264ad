"""Load generators that are light enough to share a core with the broker."""

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
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        if not _is_whole(received):
            self._received = received
            return
        self._received = b""
        self._result.statuses[received[9:12]] += 1
        if self._ends.is_set():
            self._transport.close()
        else:
            self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        elif not self.done.done():
            self.done.set_exception(RuntimeError("more requests were taken than were prepared"))
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if self._ends.is_set():
            self.done.set_result(None)
        else:
            self.done.set_exception(error or ConnectionError("the server hung up"))


def _is_whole(received: bytes) -> bool:
    end = received.find(b"\r\n\r\n")
    length = _LENGTH.search(received) if end >= 0 else None
    return length is not None and len(received) >= end + 4 + int(length[1])


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


@dataclass
class Steady:
    """What a load saw whose requests come at their times, whether earlier ones are answered or not.

    Attributes:
        began: The first request was due then, in Unix time.
        took: Seconds from the time at which each request was due to its answer.
        behind: Seconds by which the generator was late at most.
        connections: Opened for it.
    """

    began: float = 0.0
    statuses: Counter[bytes] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    behind: float = 0.0
    connections: int = 0


class _Kept(asyncio.Protocol):
    """A connection that is kept for the next request."""

    def __init__(self, result: Steady, idle: "list[_Kept]", request: bytes, due: float) -> None:
        self._result = result
        self._idle = idle
        self._request = request
        self._due = due
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self.answered = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self._due = due
        self.answered.clear()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        if not _is_whole(received):
            self._received = received
            return
        self._received = b""
        self._result.took.append(self._loop.time() - self._due)
        self._result.statuses[received[9:12]] += 1
        self._idle.append(self)
        self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.is_set():
            self._result.statuses[b"cut"] += 1
            self.answered.set()
        elif self in self._idle:
            self._idle.remove(self)


async def steady(
    port: int,
    requests: Iterator[bytes],
    *,
    per_second: float,
    seconds: float,
    ends: asyncio.Event | None = None,
) -> Steady:
    """Send requests at even intervals, on as many connections as that takes.

    Args:
        ends: Set when the rest is not to be sent.
    """
    loop = asyncio.get_running_loop()
    result = Steady(began=time.time())
    idle: list[_Kept] = []
    opened: list[_Kept] = []
    opening: set[asyncio.Task[None]] = set()
    began = loop.time()
    for number in range(int(per_second * seconds)):
        if ends is not None and ends.is_set():
            break
        due = began + number / per_second
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            # Late: the answers must be read all the same.
            await asyncio.sleep(0)
        result.behind = max(result.behind, loop.time() - due)
        if idle:
            idle.pop().send(next(requests), due)
            continue
        one = _Kept(result, idle, next(requests), due)
        opened.append(one)
        task = asyncio.create_task(_open(one, port, result))
        opening.add(task)
        task.add_done_callback(opening.discard)
    await asyncio.gather(*opening)
    for one in opened:
        await one.answered.wait()
        if one.transport is not None:
            one.transport.close()
    result.connections = len(opened)
    return result


async def _open(one: _Kept, port: int, result: Steady) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: one, "127.0.0.1", port)
    except OSError:
        result.statuses[b"refused"] += 1
        one.answered.set()
