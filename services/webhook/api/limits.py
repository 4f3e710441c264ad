"""How much one API key may ask for."""

import asyncio
import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from services.webhook.api.problems import ProblemError


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a key's quota after a request.

    Attributes:
        retry_after: Seconds until the next request passes; 0 when this one did.
        headers: `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers-10.
    """

    retry_after: int
    headers: tuple[tuple[bytes, bytes], ...]

    def check(self) -> None:
        """Let the request pass.

        Raises:
            ProblemError: Nothing was left.
        """
        if self.retry_after:
            raise ProblemError(
                429,
                "RATE_LIMITED",
                "This key has used up its requests; API_REQUESTS_PER_MINUTE limits them.",
                headers={"retry-after": str(self.retry_after)},
            )


class RateLimiter:
    """A token bucket for each key, which holds a minute's requests.

    Args:
        per_minute: Requests a minute, and at most at once.
        monotonic: Clock in seconds.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._capacity = per_minute
        self._per_second = per_minute / 60
        self._monotonic = monotonic
        self._buckets: dict[str, tuple[float, float]] = {}
        self._policy = (b"ratelimit-policy", f'"default";q={per_minute};w=60'.encode())

    def take(self, key: str) -> Quota:
        """Count one request of the key named `key`."""
        now = self._monotonic()
        tokens, then = self._buckets.get(key, (float(self._capacity), now))
        tokens = min(self._capacity, tokens + (now - then) * self._per_second)
        allowed = tokens >= 1
        tokens -= allowed
        self._buckets[key] = tokens, now
        full_in = math.ceil((self._capacity - tokens) / self._per_second)
        left = (b"ratelimit", f'"default";r={int(tokens)};t={full_in}'.encode())
        retry_after = 0 if allowed else math.ceil((1 - tokens) / self._per_second)
        return Quota(retry_after, (left, self._policy))


class HeldRequests:
    """Requests that stay open for long: bounded for each key, and let go when the edge stops.

    Args:
        per_key: How many one key may hold; of downloads half as many.
    """

    def __init__(self, per_key: int) -> None:
        self._per_key = per_key
        self._downloads_per_key = max(1, per_key // 2)
        self._held: Counter[str] = Counter()
        self._downloads: Counter[str] = Counter()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let all of them end now."""
        self._closing.set()

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Count one request of the key named `key` while the context is open.

        Raises:
            ProblemError: The key holds as many as it may.
        """
        if self._held[key] >= self._per_key:
            raise _too_many(f"{self._per_key} streams, downloads and waiting requests")
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1

    @contextlib.contextmanager
    def hold_download(self, key: str) -> Iterator[None]:
        """The same for what messaging gives out part by part: it has few for all keys together.

        Raises:
            ProblemError: The key holds as many as it may.
        """
        if self._downloads[key] >= self._downloads_per_key:
            raise _too_many(f"{self._downloads_per_key} downloads")
        self._downloads[key] += 1
        try:
            yield
        finally:
            self._downloads[key] -= 1

    async def pause(self, seconds: float, *until: asyncio.Future[Any]) -> bool:
        """Wait for `seconds`, or shorter when one of `until` is done.

        Returns:
            Whether the request should end.
        """
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                [closing, *until], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            closing.cancel()
        return self._closing.is_set()


class Turns:
    """Few of a key's requests for pages are answered at once; the others wait for their turn.

    A page may have a megabyte, which is in memory here and in messaging until it is sent.

    Args:
        per_key: How many of one key are answered at once.
        wait_seconds: Whoever has waited so long is refused.
    """

    def __init__(self, per_key: int = 8, wait_seconds: float = 8.0) -> None:
        self._wait_seconds = wait_seconds
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(per_key)
        )

    async def one(self, request: Request) -> AsyncIterator[None]:
        """A dependency of routes: it is their key's turn until the answer is out.

        Raises:
            ProblemError: It didn't come in time.
        """
        turns = self._turns[request.state.key]
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turns.acquire()
        except TimeoutError:
            raise _too_many("its requests for pages, which are sent too slowly") from None
        try:
            yield
        finally:
            turns.release()


def _too_many(held: str) -> ProblemError:
    return ProblemError(
        429, "TOO_MANY_HELD", f"This key already holds {held}.", headers={"retry-after": "5"}
    )
