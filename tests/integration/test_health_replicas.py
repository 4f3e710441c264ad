"""Health where the edge, or messaging, has several replicas behind one name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest

from services.common.http_server import serving_http
from services.common.monitor import ComponentReport, Finding, Findings
from services.health.edge import webhook_probe
from services.health.heard import CLOCKS, Heard
from services.health.messaging import messaging_probe
from services.health.probes import MESSAGING, WEBHOOK
from services.health.replicas import origins_of, targets_of
from tests.support.health import FINE, TOKEN, FakeEdge, messaging
from tests.support.ports import free_port


class Edges:
    """Two that answer, and a place where a third one should be."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.replicas = [FakeEdge(), FakeEdge()]
        self.origins: list[str] = []

    async def found(self, wanted: Sequence[str] | None = None) -> Finding:
        """What health finds behind a name that stands for these."""

        async def addresses(_: str) -> Sequence[str]:
            return self.origins if wanted is None else wanted

        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            probe = webhook_probe(client, "http://webhook:9100", self.heard, addresses=addresses)
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


@pytest.mark.parametrize("which", [0, 1])
async def test_what_one_has_met_is_not_forgotten_over_the_others(edges: Edges, which: int) -> None:
    """Trouble with the journal and a wrong clock count, whoever answers last."""
    edges.replicas[which].says |= {"journal_trouble": "it doesn't confirm that events are stored"}
    edges.replicas[which].ahead_seconds = -3600
    await edges.found()
    assert edges.heard.journal_trouble == "it doesn't confirm that events are stored"
    edges.heard.clock(MESSAGING, [0.0])
    assert (await edges.heard.clocks())[CLOCKS].reason == "that of webhook is 3600 s behind"
    edges.replicas[which].says |= {"journal_trouble": ""}
    edges.replicas[which].ahead_seconds = 0
    await edges.found()
    assert edges.heard.journal_trouble == ""
    assert (await edges.heard.clocks())[CLOCKS].status == "ok"


async def test_a_name_for_one_machine_is_asked_as_it_is() -> None:
    """Also where the name stands for it in both families, or can't be resolved."""
    for origin in ("http://127.0.0.1:9100", "http://localhost:9100", "http://nowhere.invalid:9"):
        assert await origins_of(origin) == [origin]


AWAY = ComponentReport("down", "the database doesn't answer", {"round_trip_seconds": 3.0})


class Messagings:
    """Two replicas of messaging, and what health finds behind the name that stands for them."""

    def __init__(self) -> None:
        self.told = [{"database": FINE}, {"database": FINE}]
        self.targets = [f"127.0.0.1:{free_port()}" for _ in self.told]
        self.in_name: Sequence[str] = self.targets
        self._ask = messaging_probe(
            "messaging:50051", TOKEN, 20, Heard(), addresses=self._addresses
        )

    async def _addresses(self, _: str) -> Sequence[str]:
        return self.in_name

    async def found(self) -> Findings:
        """What every round of several says alike."""
        rounds = [await self._ask() for _ in range(4)]
        assert len({(one[MESSAGING].status, one["database"].status) for one in rounds}) == 1
        return rounds[-1]


@pytest.fixture
async def messagings() -> AsyncIterator[Messagings]:
    running = Messagings()
    async with AsyncExitStack() as closing:
        for target, told in zip(running.targets, running.told, strict=True):
            await closing.enter_async_context(messaging(int(target.rpartition(":")[2]), told))
        yield running


async def test_what_one_messaging_lacks_degrades(messagings: Messagings) -> None:
    """It is said at once and in every round, whichever answers first; down is what all lack."""
    found = await messagings.found()
    assert (found[MESSAGING].status, found["database"].status) == ("ok", "ok")
    assert found[MESSAGING].details["replicas"] == 2
    for told in messagings.told:
        messagings.told[0]["database"] = messagings.told[1]["database"] = FINE
        told["database"] = AWAY
        database = (await messagings.found())["database"]
        assert (database.status, database.settled) == ("degraded", True)
        assert database.reason == "1 of 2: the database doesn't answer"
        assert database.details == AWAY.details
    messagings.told[0]["database"] = AWAY
    database = (await messagings.found())["database"]
    assert (database.status, database.reason) == ("down", "2 of 2: the database doesn't answer")


async def test_a_messaging_that_is_gone_degrades(messagings: Messagings) -> None:
    """What the others say is then to be confirmed: one lost packet must not change it."""
    messagings.in_name = [messagings.targets[0], f"127.0.0.1:{free_port()}"]
    messagings.told[0]["database"] = AWAY
    found = await messagings.found()
    assert found[MESSAGING].status == "degraded"
    assert found[MESSAGING].reason == "1 of 2: it can't be reached"
    assert (found["database"].status, found["database"].settled) == ("down", False)


async def test_a_name_that_nobody_knows_any_more(messagings: Messagings) -> None:
    """Those it stood for are asked on: Kubernetes takes away whoever isn't ready."""
    await messagings.found()
    messagings.in_name = ()
    assert (await messagings.found())[MESSAGING].details["replicas"] == 2


async def test_addresses_of_messaging() -> None:
    """Of one family; none for a name that isn't known."""
    assert await targets_of("127.0.0.1:50051") == ["127.0.0.1:50051"]
    assert await targets_of("[::1]:50051") == ["[::1]:50051"]
    for unknown in ("nowhere.invalid:1", "dns:///messaging:1", "a..b:1", "messaging"):
        assert not await targets_of(unknown)
