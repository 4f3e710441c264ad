"""Bringing events to their streams that an edge acknowledged in a bundle and didn't live to move.

See `services/common/journal/bundles.py`.
"""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.common.journal.bundles import MalformedBundleError, bring, unbundled
from services.common.journal.putting import JournalUnavailableError
from services.common.journal.streams import INTAKE_STREAM, INTAKE_SUBJECTS

log = structlog.get_logger(__name__)


class LeftBundles:
    """Finds bundles that nobody has moved.

    A bundle is left when it was there at the last look already: the edge that wrote it moves it
    within a fraction of that time. If it only was slow, its events come to their stream twice,
    which that notices by their ids. No clock is asked.

    Args:
        every_seconds: Between two looks.
    """

    def __init__(self, client: Client, *, every_seconds: float = 3.0) -> None:
        self._client = client
        self._every_seconds = every_seconds
        self._seen = 0
        self._unreadable: set[int] = set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (nats.errors.Error, OSError) as error:
                log.warning("bundles stay where they are for now", error=repr(error))
            except Exception:
                # What somebody has put there must not end the service.
                log.exception("bundles could not be looked at")
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> int:
        """Move what has been there since the last look; returns how many events that were.

        Raises:
            nats.errors.Error: The broker didn't answer, or there is no such stream.
        """
        js = self._client.jetstream()
        state = (await js.stream_info(INTAKE_STREAM)).state
        if state.last_seq < self._seen:
            # Another broker, or an emptied one.
            self._seen = 0
            self._unreadable.clear()
        last, self._seen = self._seen, state.last_seq
        moved, sequence = 0, state.first_seq
        while state.messages and (found := await _next(js, sequence)) and found[0] <= last:
            moved += await self._move(js, *found)
            sequence = found[0] + 1
        if moved:
            log.info("events of an edge that is gone were brought to the journal", events=moved)
        return moved

    async def _move(self, js: JetStreamContext, sequence: int, data: bytes) -> int:
        try:
            entries = unbundled(data)
            await bring(self._client, entries)
        except MalformedBundleError as error:
            # Somebody else's. Nothing is thrown away that may be an event.
            if sequence not in self._unreadable:
                log.warning("a bundle can't be read", sequence=sequence, reason=str(error))
            self._unreadable.add(sequence)
            return 0
        except JournalUnavailableError as error:
            # The next one may be taken: it is this one's own headers or size that are refused.
            log.warning("a bundle stays where it is for now", sequence=sequence, reason=str(error))
            return 0
        with contextlib.suppress(nats.js.errors.APIError):
            # Unless its edge, or another messaging, was quicker.
            await js.delete_msg(INTAKE_STREAM, sequence)
        return len(entries)


async def _next(js: JetStreamContext, sequence: int) -> tuple[int, bytes] | None:
    """The first bundle from a sequence on, and where it stands."""
    try:
        found = await js.get_msg(INTAKE_STREAM, seq=sequence, subject=INTAKE_SUBJECTS, next=True)
    except nats.js.errors.NotFoundError:
        return None
    return found.seq or sequence, found.data or b""
