"""Audio files in memory."""

import asyncio

import pytest

from services.common.errors import UnavailableError
from services.webhook.audio_cache import AudioCache


class Store:
    """Files that are given out when `open` is set.

    Attributes:
        fetched: Ids that were asked for, in order.
    """

    def __init__(self, **files: bytes) -> None:
        self._files = files
        self.fetched: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False

    async def fetch(self, audio_id: str) -> bytes | None:
        self.fetched.append(audio_id)
        await self.open.wait()
        if self.broken:
            raise UnavailableError("away")
        return self._files.get(audio_id)


async def test_many_who_ask_at_once_share_one_fetch() -> None:
    """Also when one of them goes away; later ones find it in memory."""
    store = Store(a=b"mp3")
    store.open.clear()
    cache = AudioCache(store.fetch, max_bytes=100)
    asking = [asyncio.create_task(cache.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    store.open.set()
    assert await asyncio.gather(*asking[1:]) == [b"mp3"] * 19
    assert (await cache.get("a"), cache.held("a")) == (b"mp3", b"mp3")
    assert store.fetched == ["a"]


async def test_memory_is_bounded_and_keeps_what_is_used() -> None:
    """Of too much, what was unused for longest goes; what is larger than all is never kept."""
    store = Store(a=b"x" * 40, b=b"x" * 40, c=b"x" * 40, huge=b"x" * 101)
    cache = AudioCache(store.fetch, max_bytes=100)
    for name in ("a", "b", "a", "c", "huge"):
        assert await cache.get(name)
    assert [name for name in ("a", "b", "c", "huge") if cache.held(name)] == ["a", "c"]


async def test_what_is_missing_or_fails_is_asked_for_again() -> None:
    """Neither a miss nor an error is remembered: the file may be there a moment later."""
    store = Store(a=b"mp3")
    cache = AudioCache(store.fetch, max_bytes=100)
    assert await cache.get("b") is None
    assert await cache.get("b") is None
    store.broken = True
    with pytest.raises(UnavailableError):
        await cache.get("a")
    store.broken = False
    assert await cache.get("a") == b"mp3"
    assert store.fetched == ["b", "b", "a", "a"]


async def test_an_error_that_nobody_waits_for_is_quiet() -> None:
    """Who asked has gone; asyncio has nothing to complain of."""
    store = Store()
    store.open.clear()
    store.broken = True
    asking = asyncio.create_task(AudioCache(store.fetch, max_bytes=100).get("a"))
    await asyncio.sleep(0)
    asking.cancel()
    store.open.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
