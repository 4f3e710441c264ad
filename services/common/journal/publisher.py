"""Publishing to the journal: what arrives while a commit is under way is committed together.

An fsync costs the same for one event as for many. A few events are published plainly; more
become one JetStream atomic batch
(https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md).
"""

import asyncio
import contextlib
import itertools
import uuid
from collections import deque
from dataclasses import dataclass, field

import nats.errors
import structlog
from nats.aio.client import Client

from services.common.errors import UnavailableError
from services.common.journal.events import JournalEvent
from services.common.journal.frames import batch_frame, refusal_in
from services.common.tracing import detached

log = structlog.get_logger(__name__)

_FEW = 8
"""Up to so many events are quicker published side by side: JetStream stages a batch in files of
its own, which costs about as much as ten plain fsyncs."""


_ENOUGH = 64
"""So many wait before another commit starts beside one under way: smaller ones together cost the
broker more than they save."""

_GATHER_SECONDS = 0.005
"""At most so long a commit waits for requests that keep coming in."""

_TRIAL_PAUSE_SECONDS = 0.5


class JournalUnavailableError(UnavailableError):
    """The journal didn't confirm the event. It may hold it all the same; the id deduplicates."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One event, and everyone who waits for it: the same webhook may come twice at once."""

    event: JournalEvent
    deadline: float
    futures: list[asyncio.Future[None]] = field(default_factory=list)


class JournalPublisher:
    """Publishes events so that each is on the broker's disk before `publish` returns.

    Args:
        client: May still be connecting; until then every publish is refused.
        streams_ready: Set when the streams are there; until then likewise. None: they are.
        timeout_seconds: How long one publish may take, waiting for its turn included.
        max_batch: Events in one commit. JetStream takes at most 1,000.
        max_commits: Commits under way at once.
        max_waiting: Events waiting for a commit; more are refused at once.
    """

    def __init__(
        self,
        client: Client,
        *,
        streams_ready: asyncio.Event | None = None,
        timeout_seconds: float = 3.0,
        max_batch: int = 256,
        max_commits: int = 2,
        max_waiting: int = 8192,
    ) -> None:
        self._client = client
        self._streams_ready = streams_ready
        self._timeout_seconds = timeout_seconds
        self._max_batch = max_batch
        self._max_commits = max_commits
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._by_key: dict[str, _Waiting] = {}
        self._commits: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._trouble = ""
        self._trial: asyncio.Task[None] | None = None
        self._batch_prefix = uuid.uuid4().hex
        self._batch_numbers = itertools.count()

    @property
    def connected(self) -> bool:
        """Whether the journal is there; the next publish may fail all the same.

        Not from a commit that it left unanswered until it answers one: the others needn't wait
        for it too.
        """
        ready = self._streams_ready
        return (
            self._client.is_connected and self._trial is None and (ready is None or ready.is_set())
        )

    @property
    def trouble(self) -> str:
        """Why the last publishing failed though the journal is there; "" when it didn't.

        A broker whose disk is full, or was, may answer every question and store nothing.
        """
        return self._trouble

    async def publish(self, event: JournalEvent) -> None:
        """Put `event` into the journal; returns once JetStream has confirmed it.

        An event whose key is in the journal already is a success: it is stored once.

        Raises:
            JournalUnavailableError: No connection, no confirmation in time, a full stream, or
                too many events waiting.
        """
        # The client would keep what is published without a connection in a buffer of its own.
        if not self.connected:
            raise JournalUnavailableError("the journal isn't there")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = self._by_key.get(event.key)
        if waiting is None:
            if len(self._waiting) >= self._max_waiting:
                raise JournalUnavailableError("too many events wait for the journal")
            waiting = _Waiting(event, loop.time() + self._timeout_seconds)
            self._by_key[event.key] = waiting
            self._waiting.append(waiting)
            self._schedule(loop)
        waiting.futures.append(future)
        await future

    async def close(self) -> None:
        """Wait for the commits under way."""
        if self._trial is not None:
            self._trial.cancel()
        while self._commits or self._waiting:
            await asyncio.gather(*self._commits)
            await asyncio.sleep(0)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        commits = len(self._commits)
        free = commits < self._max_commits and (not commits or len(self._waiting) >= _ENOUGH)
        if free and not self._scheduled:
            self._scheduled = True
            end = loop.time() + _GATHER_SECONDS
            loop.call_soon(self._gather, loop, 0, end, context=detached())

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, end: float) -> None:
        """Start a commit once the loop has turned without a new event.

        What is readable at the same time is to share a commit, and the loop takes several turns
        to read it: starting at the first event, most commits were of one event, and the next one
        of all others. An event that comes alone waits for two turns.
        """
        waiting = len(self._waiting)
        if seen < waiting < self._max_batch and loop.time() < end:
            loop.call_soon(self._gather, loop, waiting, end)
            return
        self._scheduled = False
        if not waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(waiting, self._max_batch))]
        task = loop.create_task(self._commit(batch))
        self._commits.add(task)
        task.add_done_callback(self._commit_ended)
        if self._waiting:
            self._schedule(loop)

    def _commit_ended(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a commit failed", exc_info=error)
        if self._waiting:
            self._schedule(task.get_loop())

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            if len(batch) <= _FEW or not await self._commit_together(batch):
                await asyncio.gather(*map(self._commit_alone, batch))
        except JournalUnavailableError as error:
            for waiting in batch:
                self._settle(waiting, error)
        finally:
            # Whatever went wrong above, nobody is left waiting.
            for waiting in batch:
                if waiting.futures:
                    self._settle(waiting, JournalUnavailableError("the commit was cut short"))

    def _settle(self, waiting: _Waiting, error: JournalUnavailableError | None = None) -> None:
        """Tell everyone who waits; whoever comes with the same key from now on starts anew."""
        if error is None:
            self._trouble = ""
        if self._by_key.get(waiting.event.key) is waiting:
            del self._by_key[waiting.event.key]
        futures, waiting.futures = waiting.futures, []
        for future in futures:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    async def _commit_alone(self, waiting: _Waiting) -> None:
        try:
            refusal = await self._request(waiting.event, {}, waiting.deadline)
        except JournalUnavailableError as error:
            self._settle(waiting, error)
            return
        if refusal:
            log.warning("the journal refused an event", reason=refusal)
            self._trouble = f"it refuses events: {refusal}"
            self._settle(waiting, JournalUnavailableError(f"the journal refused: {refusal}"))
        else:
            self._settle(waiting)

    async def _commit_together(self, batch: list[_Waiting]) -> bool:
        """Whether the batch was stored; JetStream stores nothing of one it refuses.

        It refuses a batch of which it knows one event already, for example.
        """
        if not self._client.is_connected:
            raise JournalUnavailableError("the journal is not connected")
        batch_id = f"{self._batch_prefix}-{next(self._batch_numbers)}"
        staged = b"".join(
            [
                batch_frame(waiting.event, batch_id, number)
                for number, waiting in enumerate(batch[:-1], 1)
            ]
        )
        try:
            # Written in one piece: `publish` for each would cost several times as much. The client
            # sends this and the request below together, in this order.
            await self._client._send_command(staged)
        except (nats.errors.Error, OSError) as error:
            raise JournalUnavailableError(f"the journal didn't answer: {error!r}") from error
        commit = {
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(len(batch)),
            "Nats-Batch-Commit": "1",
        }
        if refusal := await self._request(batch[-1].event, commit, batch[0].deadline):
            log.debug("the journal refused a batch", reason=refusal, events=len(batch))
            return False
        for waiting in batch:
            self._settle(waiting)
        return True

    async def _request(self, event: JournalEvent, headers: dict[str, str], deadline: float) -> str:
        """Publish and wait for the answer: why it was refused, or "" when it is stored."""
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0 or not self._client.is_connected:
            raise JournalUnavailableError("the journal didn't answer in time")
        try:
            reply = await self._client.request(
                event.kind.subject,
                event.data,
                timeout=remaining,
                headers=event.headers() | headers,
            )
        except nats.errors.TimeoutError as error:
            self._is_silent(event)
            raise JournalUnavailableError("the journal didn't answer in time") from error
        except (nats.errors.Error, OSError) as error:
            self._trouble = f"it takes no events: {error!r}"
            raise JournalUnavailableError(f"the journal didn't answer: {error!r}") from error
        return refusal_in(reply)

    def _is_silent(self, event: JournalEvent) -> None:
        """Refuse everybody until the journal has answered `event`."""
        self._trouble = "it doesn't confirm that events are stored"
        if self._trial is not None:
            return
        log.warning("the journal doesn't answer")
        self._trial = asyncio.get_running_loop().create_task(
            self._until_it_answers(event), context=detached()
        )
        while self._waiting:
            self._settle(self._waiting.popleft(), JournalUnavailableError("the journal is silent"))

    async def _until_it_answers(self, event: JournalEvent) -> None:
        """Publish one event again and again; it is stored once.

        Nothing else shows that events are stored: a broker that can't write to its disk may answer
        every other question. A refusal is an answer too, and nobody waits long for one.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                with contextlib.suppress(JournalUnavailableError):
                    refusal = await self._request(event, {}, loop.time() + self._timeout_seconds)
                    self._trouble = f"it refuses events: {refusal}" if refusal else ""
                    log.info("the journal answers again")
                    return
                await asyncio.sleep(_TRIAL_PAUSE_SECONDS)
        finally:
            self._trial = None
