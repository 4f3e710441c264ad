"""Audio files in memory, so that each is fetched from the store once."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

Fetch = Callable[[str], Awaitable[bytes | None]]


class AudioCache:
    """The files used last, in bounded memory; they never change.

    Args:
        fetch: Gets a file from the store; None when there is none.
        max_bytes: Of all files together. A larger one is passed on without being kept.
    """

    def __init__(self, fetch: Fetch, *, max_bytes: int) -> None:
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._fetching: dict[str, asyncio.Task[bytes | None]] = {}

    def held(self, audio_id: str) -> bytes | None:
        """A file that is in memory."""
        content = self._files.get(audio_id)
        if content is not None:
            self._files.move_to_end(audio_id)
        return content

    async def get(self, audio_id: str) -> bytes | None:
        """A file; None when there is none. Who asks while it is being fetched waits for that.

        Raises:
            Exception: Whatever `fetch` raises.
        """
        content = self.held(audio_id)
        if content is not None:
            return content
        task = self._fetching.get(audio_id)
        if task is None:
            task = asyncio.ensure_future(self._fetch_and_keep(audio_id))
            self._fetching[audio_id] = task
            task.add_done_callback(_seen)
        # One who goes away doesn't take it from the others.
        return await asyncio.shield(task)

    async def _fetch_and_keep(self, audio_id: str) -> bytes | None:
        try:
            content = await self._fetch(audio_id)
        finally:
            del self._fetching[audio_id]
        if content is not None and len(content) <= self._max_bytes:
            self._files[audio_id] = content
            self._bytes += len(content)
            while self._bytes > self._max_bytes:
                _, oldest = self._files.popitem(last=False)
                self._bytes -= len(oldest)
        return content


def _seen(task: asyncio.Task[bytes | None]) -> None:
    """Keeps asyncio quiet about an error that nobody is left to hear of."""
    if not task.cancelled():
        task.exception()
