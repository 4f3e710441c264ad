"""Several of each service on a cluster of NATS servers: who works, and what a death costs.

`make replicas-test` runs it: eleven processes take too long for every run of all tests.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.journal.streams import INGEST_STREAM
from tests.support.replicas import Replicas, running_replicas

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif("REPLICAS_TEST" not in os.environ, reason="`make replicas-test` runs it"),
]

DONE = {
    "webhook": ("switchboard_webhook_requests_total", {"outcome": "journaled"}),
    "messaging": ("switchboard_ingest_events_total", {"outcome": "stored"}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Replicas]:
    async with running_replicas(Path(tmp_path_factory.mktemp("replicas"))) as running:
        yield running


async def test_replicas_share_the_work_and_nothing_is_doubled(replicas: Replicas) -> None:
    """Each of two edges and two messagings takes its part; when one of each is killed and comes
    back, every event is stored once and every message was sent once."""
    stack = replicas.stack
    async with replicas.load("shared") as ledger:
        await asyncio.sleep(2)
        for name in (*stack.edges, *stack.messagings):
            metric, labels = DONE[name.partition("-")[0]]
            assert await replicas.done(name, metric, **labels) > 0
        for name in stack.messagings:
            assert await replicas.done(name, "switchboard_send_attempts_total") > 0
        for name in (stack.edges[0], stack.messagings[1]):
            stack.kill(name)
        await asyncio.sleep(1)
        for name in (stack.edges[0], stack.messagings[1]):
            stack.start(name)
        for name in (stack.edges[0], stack.messagings[1]):
            await stack.ready(name)
        await asyncio.sleep(1)
    assert ledger.acknowledged
    assert any(send.id for send in ledger.sends.values())


async def test_nats_loses_its_leaders(replicas: Replicas) -> None:
    """The server that leads the journal is killed under load and comes back, then the one that
    leads the cluster: whatever was acknowledged meanwhile is in the journal and stored, once."""
    async with replicas.load("leaders") as ledger:
        await asyncio.sleep(1)
        for find in ("journal", "cluster"):
            if find == "journal":
                leader = await replicas.cluster.leader_of(replicas.nats, INGEST_STREAM)
            else:
                leader = await asyncio.to_thread(replicas.cluster.meta_leader)
            before = len(ledger.acknowledged)
            replicas.cluster.nodes[leader].kill()
            # Taken while nobody leads, and after that.
            deadline = time.monotonic() + 30
            while len(ledger.acknowledged) < before + 20:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert await replicas.cluster.leader_of(replicas.nats, INGEST_STREAM) != leader
            await asyncio.to_thread(replicas.cluster.nodes[leader].start)
            await asyncio.to_thread(replicas.cluster.until_whole)
