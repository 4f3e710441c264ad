"""OpenAI's own SDK can't tell the sandbox from OpenAI, for what Switchboard uses."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream

from sandbox.faults import (
    Fault,
    Faults,
    OpenAICut,
    OpenAIRateLimited,
    OpenAISlow,
)
from sandbox.server import RunningSandbox

MODEL = "gpt-6-luna"
QUESTION = "Is the flat in Haifa still free?"
ANSWER = "Yes, the flat in Haifa is still free. Would you like to come and see it this week?"


def client(sandbox: RunningSandbox, **options: Any) -> AsyncOpenAI:
    """OpenAI's SDK, refusing whatever isn't exactly as its types say."""
    defaults: dict[str, Any] = {
        "api_key": "openai-key",
        "base_url": f"{sandbox.base_url}/openai/v1",
        "max_retries": 0,
        "timeout": 10,
        "_strict_response_validation": True,
    }
    return AsyncOpenAI(**defaults | options)


@pytest.fixture
async def ai(sandbox: RunningSandbox) -> AsyncIterator[AsyncOpenAI]:
    async with client(sandbox) as running:
        yield running


async def collect(asked: Awaitable[Any], kinds: list[str] | None = None) -> None:
    """Wait for a response and, if it is streamed, note the type of each event that comes."""
    answer = await asked
    if isinstance(answer, AsyncStream):
        async for event in answer:
            if kinds is not None:
                kinds.append(event.type)


async def test_response(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """An answer depends on the user's last words alone, whatever stands around them."""
    plain = await ai.responses.create(model=MODEL, input=QUESTION)
    conversation = await ai.responses.create(
        model="any-other",
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello! How can I help you?"},
            {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        ],
    )

    assert plain.output_text == conversation.output_text == ANSWER
    assert (plain.status, plain.model) == ("completed", MODEL)
    assert plain.usage is not None
    assert plain.usage.total_tokens > 0
    assert [request.answer for request in sandbox.state.openai_requests] == [ANSWER, ANSWER]


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("When are you open?", "Sunday to Thursday"),
        ("How much is the flat?", "4,200 shekels"),
        ("Can I bring my dog?", "Can I bring my dog?"),
        ("הדירה עדיין פנויה?", "הדירה עדיין פנויה"),
        ("אפשר עם כלב?", "אפשר עם כלב?"),
    ],
)
async def test_answers_fit(ai: AsyncOpenAI, question: str, part: str) -> None:
    """Common questions have an answer; the rest are quoted back, in their language."""
    assert part in (await ai.responses.create(model=MODEL, input=question)).output_text


async def test_stream(ai: AsyncOpenAI) -> None:
    """A streamed answer comes word by word in the events the SDK knows, in order."""
    stream = await ai.responses.create(model=MODEL, input=QUESTION, stream=True)
    events = [event async for event in stream]

    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert len(deltas) == len(ANSWER.split())
    assert "".join(deltas) == ANSWER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == ANSWER


async def test_stream_helper(ai: AsyncOpenAI) -> None:
    """The SDK's own accumulator of events arrives at the whole answer."""
    async with ai.responses.stream(model=MODEL, input=QUESTION) as stream:
        final = await stream.get_final_response()

    assert final.output_text == ANSWER


async def test_models(ai: AsyncOpenAI) -> None:
    """The models are listed."""
    assert MODEL in [model.id async for model in ai.models.list()]


async def test_wrong_key(sandbox: RunningSandbox) -> None:
    """A wrong key is refused as OpenAI does."""
    async with client(sandbox, api_key="wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.responses.create(model=MODEL, input=QUESTION)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("given", ["", [], [{"role": "assistant", "content": "Hello"}]])
async def test_nothing_said(ai: AsyncOpenAI, given: Any) -> None:
    """To answer nothing is an error that names the parameter."""
    with pytest.raises(openai.BadRequestError) as caught:
        await ai.responses.create(model=MODEL, input=given)
    assert caught.value.param == "input"


async def test_rate_limited(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """429 with Retry-After, once; the SDK's own retry then gets through."""
    sandbox.set_faults(Faults(openai_rate_limited=OpenAIRateLimited(times=1, retry_after=3)))
    with pytest.raises(openai.RateLimitError) as caught:
        await ai.responses.create(model=MODEL, input=QUESTION)
    assert caught.value.response.headers["Retry-After"] == "3"

    sandbox.set_faults(Faults(openai_rate_limited=OpenAIRateLimited(times=1, retry_after=None)))
    async with client(sandbox, max_retries=1) as patient:
        answer = await patient.responses.create(model=MODEL, input=QUESTION)
    assert answer.output_text == ANSWER


async def test_error_500(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """A 500, once."""
    sandbox.set_faults(Faults(openai_error_500=Fault(times=1)))
    with pytest.raises(openai.InternalServerError):
        await ai.responses.create(model=MODEL, input=QUESTION)
    assert (await ai.responses.create(model=MODEL, input=QUESTION)).output_text == ANSWER


async def test_hang(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """No answer ever comes."""
    sandbox.set_faults(Faults(openai_hang=Fault(times=1)))
    with pytest.raises(openai.APITimeoutError):
        await ai.responses.create(model=MODEL, input=QUESTION, timeout=0.3)


@pytest.mark.parametrize("stream", [False, True])
async def test_slow(sandbox: RunningSandbox, ai: AsyncOpenAI, stream: bool) -> None:
    """An answer takes longer than a client wants to wait."""
    sandbox.set_faults(Faults(openai_slow=OpenAISlow(times=1, seconds=1)))
    asked = ai.responses.create(model=MODEL, input=QUESTION, stream=stream, timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        await collect(asked)


async def test_cut(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """A stream breaks off in the middle of the answer, and a whole answer never comes."""
    sandbox.set_faults(Faults(openai_cut=OpenAICut(times=2, after_events=6)))
    received: list[str] = []
    asked = ai.responses.create(model=MODEL, input=QUESTION, stream=True)
    with pytest.raises(openai.APIConnectionError):
        await collect(asked, received)
    assert received[-2:] == ["response.output_text.delta"] * 2
    assert len(received) == 6

    with pytest.raises(openai.APIConnectionError):
        await ai.responses.create(model=MODEL, input=QUESTION)
    assert (await ai.responses.create(model=MODEL, input=QUESTION)).output_text == ANSWER


async def test_requests_are_kept(sandbox: RunningSandbox, ai: AsyncOpenAI) -> None:
    """What was asked can be read back, prompt and all, without the key."""
    await ai.responses.create(model=MODEL, input=QUESTION, instructions="Be brief.")

    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        answer = await http.get("/sandbox/openai/requests")
    (kept,) = answer.json()
    assert kept["body"] == {"model": MODEL, "input": QUESTION, "instructions": "Be brief."}
    assert kept["answer"] == ANSWER
    assert "openai-key" not in answer.text
