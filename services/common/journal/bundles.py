"""Many events as one message: on the broker's disk at once, and in their streams right after.

JetStream stages an atomic batch in files of its own, several fsyncs before the one that counts,
and whoever waits for a 200 would wait for all of them. So events that come together are committed
to the stream INTAKE as one message, acknowledged, and then brought to the streams they belong to,
each as a message of its own. What is left in INTAKE by an edge that died is brought there by
messaging (`services/messaging/consumers/left_bundles.py`).
"""

import asyncio
import re
import uuid
from collections import deque
from collections.abc import Iterable, Sequence

import nats.errors
import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from switchboard.events.v1 import bundle_pb2

from services.common.journal.entries import Entry
from services.common.journal.putting import Answer, JournalUnavailableError, put, put_together
from services.common.journal.streams import INTAKE_STREAM, INTAKE_SUBJECTS
from services.common.tracing import detached

log = structlog.get_logger(__name__)

_SUBJECT = re.compile(r"ingest(\.[a-z]+)+")
_HEADERS = re.compile(r"((Nats-Msg-Id|ce-[a-z]+|content-type|traceparent): [ -~]*\r\n)*")
_MOST_BYTES = 512 * 1024
"""NATS takes a message of up to 1 MiB, if it isn't told otherwise."""
_MOST_TOGETHER = 250
"""Events in one batch to their stream. JetStream takes at most 1,000, and is some milliseconds busy
with so many, for which the next bundles wait; with fewer it has more work in all."""
_COMPANY_SECONDS = 0.01
"""So long fewer than that wait for others: nobody waits for them to be moved."""
_SIDE_BY_SIDE = 64
_MOVE_SECONDS = 2.0
"""So long an answer is waited for, also one that went with the connection: what is brought again
costs more than waiting does, but stands there once."""
_PAUSE_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


class MalformedBundleError(ValueError):
    """What stands in INTAKE is no bundle of ours; the text says why."""


class Bundles:
    """Commits events of one process in bundles, and moves them to their streams.

    Args:
        most_waiting: Events in bundles that weren't moved yet, beyond which no more are taken.
    """

    def __init__(self, client: Client, *, most_waiting: int = 8192) -> None:
        self._client = client
        self._most_waiting = most_waiting
        # Its own, so that it never removes what others wait for.
        self._subject = INTAKE_SUBJECTS.replace(">", uuid.uuid4().hex)
        self._held: deque[tuple[int, Sequence[Entry]]] = deque()
        self._mover: asyncio.Task[None] | None = None
        self._trouble = False
        self.waiting = 0
        """Events that were acknowledged and aren't in their streams yet."""

    def takes(self, entries: Sequence[Entry]) -> bool:
        """Whether these may be committed as a bundle now."""
        size = sum(len(entry.headers) + len(entry.data) for entry in entries)
        room = self.waiting + len(entries) <= self._most_waiting
        return room and size <= _MOST_BYTES and not self._trouble

    async def commit(self, entries: Sequence[Entry], *, seconds: float) -> Answer:
        """Put events on the broker's disk, all or none; they are in their streams soon.

        Raises:
            JournalSilentError: There was no answer within `seconds`.
            JournalUnavailableError: There is no connection, or no stream.
        """
        answer = await put(
            self._client, Entry(self._subject, "", bundled(entries)), seconds=seconds
        )
        if not answer.refusal:
            self._held.append((answer.sequence, entries))
            self.waiting += len(entries)
            if self._mover is None:
                loop = asyncio.get_running_loop()
                self._mover = loop.create_task(self._move(), context=detached())
                self._mover.add_done_callback(_log_failure)
        return answer

    async def close(self) -> None:
        """Move what waits, if that can be done soon; messaging does it otherwise."""
        if self._mover is None:
            return
        await asyncio.wait([self._mover], timeout=_CLOSE_SECONDS)
        if self._mover is not None:
            log.warning("events stay in their bundles for now", events=self.waiting)
            self._mover.cancel()

    async def _move(self) -> None:
        try:
            while self._held:
                if self.waiting < _MOST_TOGETHER:
                    await asyncio.sleep(_COMPANY_SECONDS)
                await self._move_some()
        finally:
            self._mover = None

    async def _move_some(self) -> None:
        entries: list[Entry] = []
        count = 0
        for _, more in self._held:
            if entries and len(entries) + len(more) > _MOST_TOGETHER:
                break
            entries += more
            count += 1
        await self._until_brought(entries)
        # Only now: what is held bounds what is taken away, whatever ends this task before.
        moved = [self._held.popleft()[0] for _ in range(count)]
        self.waiting -= len(entries)
        end = min([max(moved) + 1, *(sequence for sequence, _ in self._held)])
        try:
            await self._client.jetstream().purge_stream(
                INTAKE_STREAM, seq=end, subject=self._subject
            )
        except (nats.errors.Error, OSError) as error:
            # They go with the next ones, or messaging finds them and sees that they are there.
            log.debug("moved bundles stay for now", error=repr(error))

    async def _until_brought(self, entries: Sequence[Entry]) -> None:
        while True:
            try:
                await bring(self._client, entries)
            except JournalUnavailableError as error:
                if not self._trouble:
                    log.warning("events wait in their bundles", reason=str(error))
                self._trouble = True
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._trouble = False
                return


def _log_failure(mover: "asyncio.Task[None]") -> None:
    """The next bundle's mover goes on with what is left."""
    if not mover.cancelled() and (error := mover.exception()):
        log.error("bundles could not be moved", exc_info=error)


async def bring(client: Client, entries: Sequence[Entry]) -> None:
    """Put the events of bundles into their stream, each as a message of its own.

    Those that are there already stay as they are.

    Raises:
        JournalUnavailableError: Not all could be put there.
    """
    answer = await put_together(client, entries, seconds=_MOVE_SECONDS)
    if not answer.refusal:
        return
    # It refuses all for one that it knows.
    log.debug("the journal refused a batch", reason=answer.refusal, events=len(entries))
    for start in range(0, len(entries), _SIDE_BY_SIDE):
        some = entries[start : start + _SIDE_BY_SIDE]
        for one in await asyncio.gather(
            *(put(client, entry, seconds=_MOVE_SECONDS) for entry in some)
        ):
            if one.refusal:
                raise JournalUnavailableError(f"the journal refused: {one.refusal}")


def bundled(entries: Iterable[Entry]) -> bytes:
    """Events as the data of one message."""
    bundle = bundle_pb2.EventBundle()
    add = bundle.events.add
    for entry in entries:
        add(subject=entry.subject, headers=entry.headers, data=entry.data)
    return bundle.SerializeToString()


def unbundled(data: bytes) -> list[Entry]:
    """The events of a bundle.

    Raises:
        MalformedBundleError: It is none, or would go elsewhere than to the journal.
    """
    try:
        bundle = bundle_pb2.EventBundle.FromString(data)
    except DecodeError as error:
        raise MalformedBundleError("it isn't a bundle of events") from error
    if not bundle.events:
        raise MalformedBundleError("it is empty")
    for event in bundle.events:
        # Whoever moves it may do more than who wrote it, and NATS takes orders from headers.
        if not _SUBJECT.fullmatch(event.subject):
            raise MalformedBundleError("it has a subject that isn't of the journal")
        if not _HEADERS.fullmatch(event.headers):
            raise MalformedBundleError("it has headers that aren't of an event")
    return [Entry(event.subject, event.headers, event.data) for event in bundle.events]
