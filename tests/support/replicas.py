"""Two of each service on three NATS servers and PostgreSQL, as `deploy/kustomize` has them."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from cli.supervisor import Part
from services.common.journal.events import JournalEvent
from services.common.journal.reading import read_events
from services.common.journal.streams import INGEST_STREAM, connect
from tests.chaos.checker import Checker
from tests.chaos.load import Ledger, Load
from tests.chaos.stack import ChaosStack, running_chaos_stack
from tests.chaos.watcher import Watcher
from tests.support.nats_deployed import NatsCluster
from tests.support.ports import free_port

_SETTLE_SECONDS = 120
_RATE = 15


class _Stack(ChaosStack):
    """Instead of the one NATS server there are three, and messaging has its internal port."""

    def __init__(self, cluster: NatsCluster, *arguments: Any, **options: Any) -> None:
        self._cluster = cluster
        super().__init__(*arguments, **options)
        self.nats_url = next(iter(cluster.nodes.values())).url_of("messaging")

    def _add(self, name: str, part: Part, internal: str = "") -> None:
        if name == "NATS":
            return
        user = name.partition("-")[0]
        own = {}
        if user in ("webhook", "messaging"):
            own = {"NATS_URL": self._cluster.url_of(user), "JETSTREAM_REPLICAS": "3"}
        if user == "messaging":
            port = free_port()
            own["METRICS_PORT"] = str(port)
            internal = f"http://127.0.0.1:{port}"
        super()._add(name, replace(part, environ={**part.environ, **own}), internal)

    def start(self, name: str) -> None:
        if name != "NATS":
            super().start(name)

    async def ready(self, name: str) -> None:
        if name != "NATS":
            await super().ready(name)


class Replicas:
    """What a test does to them, and how it finds out what they did.

    Attributes:
        nats: With the rights of messaging.
    """

    def __init__(
        self, stack: ChaosStack, cluster: NatsCluster, nats: Client, checker: Checker
    ) -> None:
        self.stack = stack
        self.cluster = cluster
        self.nats = nats
        self._checker = checker

    @contextlib.asynccontextmanager
    async def load(self, seed: str) -> AsyncIterator[Ledger]:
        """Webhooks, some twice, and sends; once all has settled, nothing is lost or doubled.

        Raises:
            AssertionError: Something was, or remains on its way.
        """
        async with httpx.AsyncClient(trust_env=False) as http:
            # The checks take everything at Twilio for this load's.
            await http.post(f"{self.stack.sandbox}/sandbox/reset")
        async with Load(self.stack.api, random.Random(seed), rate=_RATE) as load:
            stop = asyncio.Event()
            running = asyncio.create_task(load.run(stop))
            try:
                yield load.ledger
            finally:
                stop.set()
                await running
        _, left = await self._checker.settle(_SETTLE_SECONDS)
        assert left == ""
        assert await self._checker.violations(load.ledger) == []
        journaled = await self._journaled()
        assert not {event.key for event in load.ledger.acknowledged} - set(journaled)
        assert not [key for key, count in journaled.items() if count > 1]

    async def _journaled(self) -> Counter[str]:
        """How often each event stands in the journal."""
        js = self.nats.jetstream()
        last = (await js.stream_info(INGEST_STREAM)).state.last_seq
        found: Counter[str] = Counter()
        async with contextlib.aclosing(read_events(js, INGEST_STREAM, last=last)) as batches:
            async for batch in batches:
                found.update(JournalEvent.parse(one.headers, one.data).key for one in batch)
        return found

    async def done(self, name: str, metric: str, **labels: str) -> float:
        """A counter of one process."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self.stack.internal(name)}/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )


@contextlib.asynccontextmanager
async def running_replicas(folder: Path) -> AsyncIterator[Replicas]:
    """Everything, with contacts that may be written to."""
    async with contextlib.AsyncExitStack() as closing:
        cluster = NatsCluster(folder / "nats")
        closing.callback(cluster.stop)
        cluster.start()
        stack = await closing.enter_async_context(
            running_chaos_stack(
                folder,
                database="postgresql",
                chance=random.Random(1),
                make=partial(_Stack, cluster),
            )
        )
        nats = await connect(cluster.url_of("messaging"), name="test", on_closed=_closed)
        closing.push_async_callback(nats.close)
        watcher = Watcher(stack.api)
        watching = asyncio.create_task(watcher.run())
        closing.push_async_callback(_cancelled, watching)
        checker = Checker(stack, watcher)
        closing.callback(checker.close)
        async with asyncio.timeout(30):
            await watcher.begun.wait()
        async with Load(stack.api, random.Random("contacts")) as load:
            await load.introduce()
        _, left = await checker.settle(_SETTLE_SECONDS)
        assert left == ""
        yield Replicas(stack, cluster, nats, checker)


async def _closed() -> None:
    """It ends with the test."""


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
