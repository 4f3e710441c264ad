"""Telling every replica that events were added, so that its watchers needn't wait for a poll."""

import asyncio
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.client import Client

from services.messaging.consumers.listening import listen

log = structlog.get_logger(__name__)

SUBJECT = "switchboard.changes"

_TOGETHER_SECONDS = 0.01


class ChangeSignal:
    """An empty message on one subject; nothing depends on its arrival.

    Args:
        client: May still be connecting.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._added = asyncio.Event()

    def announce(self) -> None:
        """Say that events were added; those of a short while are said together."""
        self._added.set()

    async def run(self, wake: Callable[[], None]) -> None:
        """Listen and announce for ever; `wake` is called when some replica has added events."""
        await asyncio.gather(listen(self._client, SUBJECT, lambda _: wake()), self._tell(wake))

    async def _tell(self, wake: Callable[[], None]) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            # Here at once, and also while the broker is away.
            wake()
            await asyncio.sleep(_TOGETHER_SECONDS)
            if not self._client.is_connected:
                continue
            try:
                await self._client.publish(SUBJECT)
            except (nats.errors.Error, OSError) as error:
                log.warning("other replicas were not told of changes", error=repr(error))
