"""Saying what came of calls of which nothing more will be told."""

import asyncio
from datetime import timedelta

import structlog

from services.common.errors import UnavailableError
from services.messaging.ports.calls import CallStore
from services.messaging.ports.clock import Clock
from services.messaging.usecases.background import drained
from services.messaging.usecases.calls.receive import ReceiveCalls

log = structlog.get_logger(__name__)

_BATCH = 100


class SettleCalls:
    """Ends the wait for a person who was never called.

    A caller who is to be put through may hang up before, or have been led to voicemail by the edge
    meanwhile. Then nobody reports on a person who was called, and what came of the call waits for
    such a report.

    Args:
        patience: A report on a person who was called comes at the call's end, or as much later as
            it takes on its way.
        recent: Calls that began longer ago are left.
    """

    def __init__(
        self,
        store: CallStore,
        receive: ReceiveCalls,
        *,
        clock: Clock,
        patience: timedelta = timedelta(minutes=2),
        recent: timedelta = timedelta(days=1),
        poll_seconds: float = 15.0,
    ) -> None:
        self._store = store
        self._receive = receive
        self._clock = clock
        self._patience = patience
        self._recent = recent
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Settle for ever."""
        while True:
            await self.settle()
            await asyncio.sleep(self._poll_seconds)

    async def settle(self) -> None:
        """Settle what has waited for long enough."""
        now = self._clock()
        try:
            waiting = await self._store.unreported_transfers(
                since=now - self._recent, ended_before=now - self._patience, limit=_BATCH
            )
            for call_id in waiting:
                await drained(self._settled(call_id))
        except UnavailableError:
            log.warning("what came of calls waits for the database")

    async def _settled(self, call_id: str) -> None:
        try:
            await self._receive.settle(call_id)
        except UnavailableError:
            raise
        except Exception:
            # One call must not hold up the others, or end the service.
            log.exception("what came of a call could not be said", call_id=call_id)
