"""Telling of messages that a provider has taken, for reports that came before its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from services.common.errors import UnavailableError

log = structlog.get_logger(__name__)

_TOGETHER_SECONDS = 0.1
"""Nobody waits for them: one look for all that were taken in that time."""

_PAUSE_SECONDS = 1.0
"""While the database is away."""


class Accepted:
    """Collects the ids that providers gave to messages.

    Args:
        tell: Awaited with ids. UnavailableError keeps them for the next time.
        wake: Called when it is time for `told`.
    """

    def __init__(
        self, tell: Callable[[Collection[str]], Awaitable[object]], wake: Callable[[], None]
    ) -> None:
        self._tell = tell
        self._wake = wake
        self._ids: set[str] = set()
        self._due = False

    def add(self, provider_message_id: str) -> None:
        """Note an id; it is told within a moment."""
        if not self._ids:
            self._tell_in(_TOGETHER_SECONDS)
        self._ids.add(provider_message_id)

    async def told(self, *, at_once: bool = False) -> None:
        """Tell what is due, or all there is."""
        if not self._ids or not (self._due or at_once):
            return
        self._due = False
        ids, self._ids = self._ids, set()
        try:
            await self._tell(ids)
        except UnavailableError:
            log.warning("early reports wait for the database")
            self._tell_in(_PAUSE_SECONDS)
            self._ids |= ids

    def _tell_in(self, seconds: float) -> None:
        def due() -> None:
            self._due = True
            self._wake()

        asyncio.get_running_loop().call_later(seconds, due)
