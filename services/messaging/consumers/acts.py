"""Bringing what messaging did into the journal, after its commit and as soon as may be."""

import asyncio
import contextlib

import nats.errors
import structlog
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import UnavailableError
from services.common.journal.publisher import JournalPublisher
from services.common.journal.streams import ensure_acts_stream
from services.messaging.consumers.act_events import act_event
from services.messaging.ports.acts import ActLog
from services.messaging.usecases.background import drained

log = structlog.get_logger(__name__)

_AT_ONCE = 256
_TOGETHER_SECONDS = 0.2
"""An answer is three acts in that time or less: one look and one commit for them all."""

_POLL_SECONDS = 1.0
_LEASE_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 30.0


class ActPublisher:
    """Publishes acts until cancelled; what isn't confirmed is published again.

    Args:
        client: May still be connecting.
        max_bytes: Size at which the stream refuses more. Acts then wait in the database.
    """

    def __init__(
        self,
        client: Client,
        acts: ActLog,
        *,
        replicas: int,
        max_bytes: int,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._client = client
        self._acts = acts
        self._replicas = replicas
        self._max_bytes = max_bytes
        # One commit at a time keeps the acts of a message in their order.
        self._publisher = JournalPublisher(client, max_commits=1)
        self._stream_at: int | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._published_total = Counter(
            "switchboard_acts_journaled_total",
            "What messaging did, as far as it is confirmed to be in the journal.",
            registry=registry,
        )

    def wake(self) -> None:
        """Look at once whether there is something to publish."""
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever. When cancelled, finish what is under way."""
        try:
            await drained(self._work(), self._stop)
        finally:
            await self._publisher.close()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _work(self) -> None:
        pause = 0.0
        while not self._stopping:
            self._wake.clear()
            if not self._client.is_connected:
                await self._wait(_POLL_SECONDS)
                continue
            try:
                published = await self.publish()
            except UnavailableError as error:
                pause = min(max(2 * pause, _POLL_SECONDS), _MAX_PAUSE_SECONDS)
                log.warning("what was done waits for the journal", reason=str(error))
                self._wake.clear()
                await self._wait(pause)
                continue
            pause = 0.0
            if published == _AT_ONCE:
                continue
            await self._wait(_POLL_SECONDS)
            if not self._stopping:
                # Whatever comes within a moment shares a commit, here and in the journal.
                await asyncio.sleep(_TOGETHER_SECONDS)

    async def publish(self) -> int:
        """Publish the oldest acts there are; returns how many.

        Raises:
            UnavailableError: The journal or the database doesn't answer, or the stream is full.
        """
        if not self._client.is_connected:
            raise UnavailableError("the journal is not connected")
        await self._ensure_stream()
        acts = await self._acts.unjournaled(limit=_AT_ONCE, lease_seconds=_LEASE_SECONDS)
        if not acts:
            return 0
        results = await asyncio.gather(
            *(self._publisher.publish(act_event(act)) for act in acts), return_exceptions=True
        )
        confirmed = [act for act, error in zip(acts, results, strict=True) if error is None]
        if confirmed:
            await self._acts.mark_journaled(confirmed)
            self._published_total.inc(len(confirmed))
        for error in results:
            if error is not None:
                # Somebody may have removed the stream.
                self._stream_at = None
                raise error
        return len(acts)

    async def _ensure_stream(self) -> None:
        connection = self._client.stats["reconnects"]
        if self._stream_at == connection:
            return
        try:
            await ensure_acts_stream(
                self._client.jetstream(), replicas=self._replicas, max_bytes=self._max_bytes
            )
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError("the stream of acts is not ready") from error
        self._stream_at = connection

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
