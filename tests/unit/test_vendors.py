"""What is remembered of vendors' calls."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import pytest

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.call import CallAction
from services.messaging.ports.answering import Turn
from services.messaging.ports.provider_status import ProviderState
from services.messaging.ports.speech import Exchange
from services.messaging.usecases.vendors import NotedAssistant, NotedTalker, VendorRecord
from tests.support.sending import ManualClock


class Vendor:
    """An assistant for messages and calls, which does as it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False

    async def answer(self, turns: Sequence[Turn]) -> str:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return "Yes."

    async def reply(
        self, before: Sequence[Exchange], heard: str, *, language: str
    ) -> AsyncGenerator[str | CallAction, None]:
        yield "Yes."
        if self.error:
            raise self.error


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def record() -> VendorRecord:
    return VendorRecord("assistant", ManualClock())


async def test_its_last_calls_are_its_state(vendor: Vendor, record: VendorRecord) -> None:
    """Untried, then healthy, degraded while it fails, and healthy again; errors pass through."""
    assistant = NotedAssistant(vendor, record)
    assert record.status().state is ProviderState.UNTRIED
    assert await assistant.answer([]) == "Yes."
    assert record.status().state is ProviderState.HEALTHY
    vendor.error = UnavailableError("it doesn't answer")
    with pytest.raises(UnavailableError):
        await assistant.answer([])
    assert record.status().state is ProviderState.DEGRADED
    for _ in range(4):
        with pytest.raises(UnavailableError):
            await assistant.answer([])
    assert record.status().state is ProviderState.UNAVAILABLE
    vendor.error = None
    await assistant.answer([])
    assert record.status().state is ProviderState.HEALTHY


async def test_a_refused_request_is_no_failure(vendor: Vendor, record: VendorRecord) -> None:
    """A vendor that doesn't want this one conversation is there and answers."""
    vendor.error = InvalidInputError("turns", "the model refuses this conversation")
    with pytest.raises(InvalidInputError):
        await NotedAssistant(vendor, record).answer([])
    assert record.status().state is ProviderState.HEALTHY


async def test_giving_up_says_nothing_about_it(vendor: Vendor, record: VendorRecord) -> None:
    """Who leaves before the answer learns nothing of the vendor."""
    vendor.hangs = True
    task = asyncio.create_task(NotedAssistant(vendor, record).answer([]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert record.status().state is ProviderState.UNTRIED
    talker = NotedTalker(vendor, record)
    async with contextlib.aclosing(talker.reply([], "Hello", language="en-US")) as reply:
        await anext(reply)
    assert record.status().state is ProviderState.UNTRIED


async def test_an_answer_that_breaks_off_is_a_failure(vendor: Vendor, record: VendorRecord) -> None:
    """Of a streamed answer the end counts."""
    talker = NotedTalker(vendor, record)
    assert [piece async for piece in talker.reply([], "Hello", language="en-US")] == ["Yes."]
    assert record.status().state is ProviderState.HEALTHY
    vendor.error = UnavailableError("it broke off")
    with pytest.raises(UnavailableError):
        async for _ in talker.reply([], "Hello", language="en-US"):
            pass
    assert record.status().state is ProviderState.DEGRADED
