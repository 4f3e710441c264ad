"""Health where the edge has several replicas behind one name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest

from services.common.http_server import serving_http
from services.common.monitor import Finding
from services.health.heard import Heard
from services.health.probes import WEBHOOK, addresses_of, webhook_probe
from tests.support.health import FakeEdge
from tests.support.ports import free_port


class Edges:
    """Two that answer, and a place where a third one should be."""

    def __init__(self) -> None:
        self.replicas = [FakeEdge(), FakeEdge()]
        self.origins: list[str] = []

    async def found(self, wanted: Sequence[str] | None = None) -> Finding:
        """What health finds behind a name that stands for these."""

        async def addresses(_: str) -> Sequence[str]:
            return self.origins if wanted is None else wanted

        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            probe = webhook_probe(client, "http://webhook:9100", Heard(), addresses=addresses)
            return (await probe())[WEBHOOK]


@pytest.fixture
async def edges() -> AsyncIterator[Edges]:
    running = Edges()
    async with AsyncExitStack() as closing:
        for replica in running.replicas:
            port = await closing.enter_async_context(
                serving_http(replica.app, host="127.0.0.1", port=0)
            )
            running.origins.append(f"http://127.0.0.1:{port}")
        yield running


async def test_all_are_well(edges: Edges) -> None:
    """Their numbers are added up."""
    for replica in edges.replicas:
        replica.says |= {"spill_bytes": 10}
    found = await edges.found()
    assert (found.status, found.reason) == ("ok", "")
    assert found.details["replicas"] == 2
    assert found.details["spill_bytes"] == 20


async def test_one_in_trouble_degrades_the_whole(edges: Edges) -> None:
    """It is said how many have which trouble, and what waits on their disks."""
    edges.replicas[1].says |= {"journal_connected": False, "spill_events": 7}
    found = await edges.found()
    assert found.status == "degraded"
    assert found.reason.startswith("1 of 2: the journal is away")
    assert found.details["spill_events"] == 7
    assert found.details["journal_connected"] is False


async def test_one_that_is_gone_degrades_the_whole(edges: Edges) -> None:
    """As long as another one takes requests."""
    gone = f"http://127.0.0.1:{free_port()}"
    found = await edges.found([*edges.origins, gone])
    assert (found.status, found.details["replicas_down"]) == ("degraded", 1)
    assert found.reason == "1 of 3: it can't be reached"


async def test_all_are_gone(edges: Edges) -> None:
    """Then the edge is down."""
    edges.replicas[0].status_code = 503
    found = await edges.found([edges.origins[0], f"http://127.0.0.1:{free_port()}"])
    assert found.status == "down"


async def test_a_name_for_one_machine_is_asked_as_it_is() -> None:
    """Also where the name stands for it in both families, or can't be resolved."""
    for origin in ("http://127.0.0.1:9100", "http://localhost:9100", "http://nowhere.invalid:9"):
        assert await addresses_of(origin) == [origin]
