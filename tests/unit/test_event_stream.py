"""OpenAI's events, however they arrive."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from services.messaging.assistant.event_stream import events_of

STREAM = (
    "event: a\ndata: {\"delta\": \"one\u2028line\"}\n\n"
    ": a comment\r\nid: 7\r\ndata:{\"delta\":\r\ndata: \"two\"}\r\n\r\n"
    "data: {\"delta\": \"unfinished"
).encode()  # fmt: skip


async def read(pieces: Sequence[bytes]) -> list[dict[str, Any]]:
    async def received() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [event async for event in events_of(received())]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_pieces_may_end_anywhere(size: int) -> None:
    """Events are whole however the stream is cut, and what ends a line elsewhere ends none."""
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert await read(pieces) == [{"delta": "one\u2028line"}, {"delta": "two"}]


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b"data: {\n\n", b"data: \xff\n\n"])
async def test_what_is_no_event_is_an_error(data: bytes) -> None:
    """Data that is no JSON object is refused as the ValueError that callers expect."""
    with pytest.raises(ValueError, match=r"."):
        await read([data])
