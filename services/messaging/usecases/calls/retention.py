"""Deleting recordings at the provider once their words are stored."""

import asyncio

import structlog

from services.common.errors import UnavailableError
from services.messaging.ports.calls import CallStore
from services.messaging.ports.speech import Recordings
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_BATCH = 100


class DeleteRecordings:
    """Deletes the recordings of turns that are through, and tries again what fails."""

    def __init__(
        self, store: CallStore, recordings: Recordings, *, poll_seconds: float = 30.0
    ) -> None:
        self._store = store
        self._recordings = recordings
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Delete for ever."""
        while True:
            more = await self.delete()
            if not more:
                await asyncio.sleep(self._poll_seconds)

    async def delete(self) -> bool:
        """Delete what there is; True when all of it is gone and there may be more."""
        failed = 0
        try:
            due = await self._store.recordings_to_delete(limit=_BATCH)
            for call_id, turn, recording_id in due:
                failed += not await drained(self._deleted(call_id, turn, recording_id))
        except UnavailableError:
            log.warning("deleting recordings waits for the database")
            return False
        return len(due) == _BATCH and not failed

    async def _deleted(self, call_id: str, turn: int, recording_id: str) -> bool:
        try:
            await self._recordings.delete(recording_id)
        except UnavailableError:
            log.warning("a recording could not be deleted; it is tried again", call_id=call_id)
            return False
        except Exception:
            log.exception("deleting a recording failed", call_id=call_id)
            return False
        await self._store.recording_deleted(call_id, turn)
        return True
