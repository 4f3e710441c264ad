"""Doing once, before anybody calls, what makes a process's first answer slow.

OpenAI's SDK loads its resources at their first use: a fifth of a second or more, in which nobody
else would be served either.
"""

import asyncio
import json
from typing import Final

import httpx2
import openai

from services.messaging.assistant.voice_talker import VoiceTalker
from services.messaging.speech.openai_transcriber import OpenAITranscriber

_MODEL: Final = "none"
_SECONDS: Final = 60.0
_EVENTS: Final = (
    {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "item_id": "1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello.",
        "logprobs": [],
    },
    {
        "type": "response.output_item.done",
        "sequence_number": 2,
        "output_index": 0,
        "item": {"type": "message", "id": "1", "role": "assistant", "content": []},
    },
    {
        "type": "response.completed",
        "sequence_number": 3,
        "response": {"id": "1", "object": "response", "output": []},
    },
)


async def warm_up() -> None:
    """Go through a turn with a vendor that is made up here; nothing leaves the process.

    It takes a thread, so that the event loop goes on.
    """
    await asyncio.to_thread(lambda: asyncio.run(_turn()))


async def _turn() -> None:
    async with openai.AsyncOpenAI(
        api_key="none",
        base_url="http://vendor.invalid",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(_answer)),
    ) as client:
        transcriber = OpenAITranscriber(client, model=_MODEL, timeout_seconds=_SECONDS)
        await transcriber.transcribe(b"", languages=())
        talker = VoiceTalker(
            client, model=_MODEL, persona="", can_transfer=True, timeout_seconds=_SECONDS
        )
        async for _ in talker.reply((), "Hello?", language="en-US"):
            pass


def _answer(request: httpx2.Request) -> httpx2.Response:
    if not request.url.path.endswith("/responses"):
        return httpx2.Response(200, json={"text": ""})
    stream = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in _EVENTS)
    return httpx2.Response(200, text=stream, headers={"content-type": "text/event-stream"})
