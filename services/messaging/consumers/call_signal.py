"""Waking who waits for a call to change, in every replica."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

import nats.errors
import structlog
from nats.aio.client import Client

from services.messaging.consumers.listening import listen

log = structlog.get_logger(__name__)

SUBJECT = "switchboard.calls"


class NatsCallSignal:
    """`CallSignal` over core NATS: sender and call's id on one subject; it may be lost.

    Args:
        client: May still be connecting.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Everybody hears what they said themselves, and have acted upon.
        self._sender = secrets.token_hex(8).encode()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._changed: set[str] = set()
        self._added = asyncio.Event()

    @contextlib.contextmanager
    def watching(self, call_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the call, until the block is left."""
        event = asyncio.Event()
        self._waiting.setdefault(call_id, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[call_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[call_id]

    def announce(self, call_id: str) -> None:
        """Say that a call has changed: here at once, to other replicas as soon as may be."""
        self._wake(call_id)
        self._changed.add(call_id)
        self._added.set()

    async def run(self) -> None:
        """Listen and announce for ever."""
        await asyncio.gather(listen(self._client, SUBJECT, self._heard), self._tell())

    async def _tell(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            changed, self._changed = self._changed, set()
            if not self._client.is_connected:
                continue
            try:
                for call_id in changed:
                    await self._client.publish(SUBJECT, b"%s %s" % (self._sender, call_id.encode()))
            except (nats.errors.Error, OSError) as error:
                log.warning("other replicas were not told of calls", error=repr(error))

    def _heard(self, data: bytes) -> None:
        sender, _, call_id = data.partition(b" ")
        if sender != self._sender:
            self._wake(call_id.decode(errors="replace"))

    def _wake(self, call_id: str) -> None:
        for event in self._waiting.get(call_id, ()):
            event.set()
