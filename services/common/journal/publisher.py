"""Publishing to the journal: what arrives while a commit is under way is committed together.

An fsync costs the same for one event as for many. A few events are published plainly; more
become a bundle, or one JetStream atomic batch.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog
from nats.aio.client import Client

from services.common.journal.bundles import Bundles
from services.common.journal.events import JournalEvent
from services.common.journal.putting import (
    Answer,
    JournalSilentError,
    JournalUnavailableError,
    put,
    put_together,
)
from services.common.tracing import detached

log = structlog.get_logger(__name__)

_FEW = 8
"""Up to so many events are published side by side. Bundled they would be written twice, and an
atomic batch of them costs JetStream about as much as ten plain fsyncs."""

_ENOUGH_BUNDLED = _FEW + 1
_ENOUGH_BATCHED = 64
"""So many wait before another commit starts beside one under way: smaller ones together cost the
broker more than they save."""

_ENOUGH_GATHERED = 32
"""So many become a bundle though more keep coming in: those are verified meanwhile."""

_GATHER_SECONDS = 0.005
"""At most so long a commit waits for requests that keep coming in."""

_TRIAL_PAUSE_SECONDS = 0.5


Settled = Callable[[JournalUnavailableError | None], None]
"""Is told that an event is in the journal, or why it may not be."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One event, and everyone who waits for it: the same webhook may come twice at once."""

    event: JournalEvent
    deadline: float
    settled: list[Settled]


class JournalPublisher:
    """Publishes events so that each is on the broker's disk before `publish` returns.

    Args:
        client: May still be connecting; until then every publish is refused.
        bundles: Where what comes together is committed as one message; None: as atomic batches.
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
        bundles: Bundles | None = None,
        streams_ready: asyncio.Event | None = None,
        timeout_seconds: float = 3.0,
        max_batch: int = 256,
        max_commits: int = 2,
        max_waiting: int = 8192,
    ) -> None:
        self._client = client
        self._bundles = bundles
        self._enough = _ENOUGH_BATCHED if bundles is None else _ENOUGH_BUNDLED
        self._gathered = max_batch if bundles is None else min(_ENOUGH_GATHERED, max_batch)
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
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.publish_soon(event, partial(_told, future))
        await future

    def publish_soon(self, event: JournalEvent, settled: Settled) -> None:
        """As `publish`, without a task that waits.

        Args:
            settled: Called later, once, unless this raises.

        Raises:
            JournalUnavailableError: No connection, or too many events waiting.
        """
        # The client would keep what is published without a connection in a buffer of its own.
        if not self.connected:
            raise JournalUnavailableError("the journal isn't there")
        waiting = self._by_key.get(event.key)
        if waiting is not None:
            waiting.settled.append(settled)
            return
        if len(self._waiting) >= self._max_waiting:
            raise JournalUnavailableError("too many events wait for the journal")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(event, loop.time() + self._timeout_seconds, [settled])
        self._by_key[event.key] = waiting
        self._waiting.append(waiting)
        self._schedule(loop)

    async def close(self) -> None:
        """Wait for the commits under way, and for what they have bundled."""
        if self._trial is not None:
            self._trial.cancel()
        while self._commits or self._waiting:
            await asyncio.gather(*self._commits)
            await asyncio.sleep(0)
        if self._bundles is not None:
            await self._bundles.close()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        commits = len(self._commits)
        free = commits < self._max_commits and (not commits or len(self._waiting) >= self._enough)
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
        if seen < waiting < self._gathered and loop.time() < end:
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
            # Behind those that wait in bundles: so events keep their order as far as they can.
            behind = self._bundles is not None and self._bundles.waiting
            few = len(batch) <= _FEW and not behind
            if few or not await self._commit_together(batch):
                await asyncio.gather(*map(self._commit_alone, batch))
        except JournalUnavailableError as error:
            for waiting in batch:
                self._settle(waiting, error)
        finally:
            # Whatever went wrong above, nobody is left waiting.
            for waiting in batch:
                if waiting.settled:
                    self._settle(waiting, JournalUnavailableError("the commit was cut short"))

    def _settle(self, waiting: _Waiting, error: JournalUnavailableError | None = None) -> None:
        """Tell everyone who waits; whoever comes with the same key from now on starts anew."""
        if error is None:
            self._trouble = ""
        if self._by_key.get(waiting.event.key) is waiting:
            del self._by_key[waiting.event.key]
        everyone, waiting.settled = waiting.settled, []
        for settled in everyone:
            try:
                settled(error)
            except Exception:
                log.exception("who waited for an event failed")

    async def _commit_alone(self, waiting: _Waiting) -> None:
        entry = waiting.event.entry()
        try:
            answer = await self._asked(
                waiting.event,
                waiting.deadline,
                lambda seconds: put(self._client, entry, seconds=seconds),
            )
        except JournalUnavailableError as error:
            self._settle(waiting, error)
            return
        if answer.refusal:
            log.warning("the journal refused an event", reason=answer.refusal)
            self._trouble = f"it refuses events: {answer.refusal}"
            self._settle(waiting, JournalUnavailableError(f"the journal refused: {answer.refusal}"))
        else:
            self._settle(waiting)

    async def _commit_together(self, batch: list[_Waiting]) -> bool:
        """Whether the batch was stored: all of it, or nothing."""
        entries = [waiting.event.entry() for waiting in batch]
        bundles = self._bundles
        if bundles is not None and bundles.takes(entries):
            commit = partial(bundles.commit, entries)
        elif len(batch) <= _FEW:
            return False
        else:
            commit = partial(put_together, self._client, entries)
        answer = await self._asked(
            batch[0].event, batch[0].deadline, lambda seconds: commit(seconds=seconds)
        )
        if answer.refusal:
            log.debug("the journal refused a batch", reason=answer.refusal, events=len(batch))
            return False
        for waiting in batch:
            self._settle(waiting)
        return True

    async def _asked(
        self, event: JournalEvent, deadline: float, ask: Callable[[float], Awaitable[Answer]]
    ) -> Answer:
        """What the journal answers by `deadline`; whoever comes after trouble hears of it.

        Args:
            event: To be tried until the journal answers again, if it doesn't now.
        """
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            raise JournalUnavailableError("the journal didn't answer in time")
        try:
            return await ask(remaining)
        except JournalSilentError:
            self._is_silent(event)
            raise
        except JournalUnavailableError as error:
            self._trouble = f"it takes no events: {error}"
            raise

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
        entry = event.entry()
        try:
            while True:
                with contextlib.suppress(JournalUnavailableError):
                    answer = await put(self._client, entry, seconds=self._timeout_seconds)
                    self._trouble = f"it refuses events: {answer.refusal}" if answer.refusal else ""
                    log.info("the journal answers again")
                    return
                await asyncio.sleep(_TRIAL_PAUSE_SECONDS)
        finally:
            self._trial = None


def _told(future: asyncio.Future[None], error: JournalUnavailableError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
