"""The monitor: what it believes, when, and for how long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from services.common.monitor import ComponentReport, Finding, Findings, Monitor, Probe, worst

WELL = Finding("ok")
BROKEN = Finding("down", "it is broken")


class Component:
    """Something that is asked, and says what it is told to, once for each time it may."""

    def __init__(self) -> None:
        self.asked = 0
        self._answers: asyncio.Queue[Findings | Exception] = asyncio.Queue()

    async def ask(self) -> Findings:
        self.asked += 1
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def says(self, finding: Finding | Exception, **others: Finding) -> None:
        both = finding if isinstance(finding, Exception) else {"it": finding, **others}
        self._answers.put_nowait(both)


class Watched:
    """A monitor of one component."""

    def __init__(self, timeout_seconds: float = 5.0) -> None:
        self.component = Component()
        self.now = 0.0
        self.rounds = asyncio.Semaphore(0)
        self.monitor = Monitor(
            [Probe("it", self.component.ask, 0.001, timeout_seconds)],
            on_probe=lambda *_: self.rounds.release(),
            clock=lambda: self.now,
        )

    async def after(self, *findings: Finding | Exception, **others: Finding) -> ComponentReport:
        """What is reported once the component has said all that."""
        for finding in findings:
            self.component.says(finding, **others)
            await self.rounds.acquire()
            # The findings are taken in right after the round was counted.
            await asyncio.sleep(0)
        return self.monitor.report()["it"]


@contextlib.asynccontextmanager
async def watched(**options: float) -> AsyncIterator[Watched]:
    one = Watched(**options)
    task = asyncio.create_task(one.monitor.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_odd_finding_changes_nothing() -> None:
    """A single failure, or a single success in an outage, is not shown; two in a row are."""
    async with watched() as it:
        assert it.monitor.report()["it"].status == "unknown"
        assert (await it.after(WELL)).status == "ok"
        assert (await it.after(BROKEN)).status == "ok"
        assert (await it.after(WELL, BROKEN)).status == "ok"
        found = await it.after(BROKEN)
        assert (found.status, found.reason) == ("down", "it is broken")
        assert (await it.after(WELL)).status == "down"
        assert (await it.after(WELL)).status == "ok"


async def test_trouble_at_the_start_is_confirmed_first() -> None:
    """While things start up they are unknown, not down."""
    async with watched() as it:
        assert (await it.after(BROKEN)).status == "unknown"
        assert (await it.after(BROKEN)).status == "down"


async def test_what_is_settled_is_believed_at_once() -> None:
    """Who has made sure already needn't be asked twice."""
    async with watched() as it:
        await it.after(WELL)
        assert (await it.after(Finding("down", "sure", settled=True))).status == "down"


async def test_the_reason_follows_while_the_status_stays() -> None:
    """The newest words and numbers are shown, and since when is that of the status."""
    async with watched() as it:
        first = await it.after(Finding("ok", details={"n": 1}))
        second = await it.after(Finding("ok", details={"n": 2}))
        assert (second.details, second.since) == ({"n": 2}, first.since)


async def test_an_old_finding_is_unknown() -> None:
    """What was true long ago is never shown as the state of now."""
    async with watched(timeout_seconds=5) as it:
        await it.after(WELL)
        it.now = 15.0
        assert it.monitor.report()["it"].status == "ok"
        it.now = 15.1
        found = it.monitor.report()["it"]
        assert (found.status, found.age_seconds) == ("unknown", 15.1)


async def test_a_component_that_hangs_is_asked_once() -> None:
    """Nothing piles up behind a component without an answer, and its late answer counts."""
    async with watched(timeout_seconds=0.01) as it:
        await it.after(WELL)
        for _ in range(5):
            await it.rounds.acquire()
        await asyncio.sleep(0)
        found = it.monitor.report()["it"]
        assert (found.status, found.reason) == ("down", "no answer within 0.01 s")
        assert it.component.asked == 2
        it.now = 31.0
        await until(lambda: it.component.asked > 2)


async def test_a_probe_that_fails_is_our_fault() -> None:
    """An error of the probe says nothing about the component."""
    async with watched() as it:
        await it.after(WELL)
        found = await it.after(ZeroDivisionError(), ZeroDivisionError())
        assert (found.status, found.reason) == ("unknown", "asking failed: ZeroDivisionError")


async def test_what_one_component_tells_of_others() -> None:
    """When the teller is gone nothing is known of them; when it stops telling they are gone."""
    async with watched() as it:
        await it.after(WELL, other=BROKEN)
        await it.after(WELL, other=BROKEN)
        assert it.monitor.report()["other"].status == "down"
        it.component.says(BROKEN)
        it.component.says(BROKEN)
        await it.rounds.acquire()
        await it.rounds.acquire()
        await asyncio.sleep(0)
        found = it.monitor.report()["other"]
        assert (found.status, found.reason) == ("unknown", "it can't be asked")
        await it.after(WELL)
        assert "other" not in it.monitor.report()


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((), "ok"), (("ok", "degraded"), "degraded"), (("unknown", "degraded"), "unknown"),
     (("unknown", "down", "ok"), "down")],
)  # fmt: skip
def test_the_worst_of_several(statuses: tuple[str, ...], expected: str) -> None:
    """Down is worse than unknown, and unknown worse than degraded."""
    assert worst(statuses) == expected  # type: ignore[arg-type]  # pytest knows no Literal.


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to tell
            await asyncio.sleep(0.01)
