"""Reading a stream of OpenAI's events as plain JSON.

The SDK makes objects of them, and for that builds validators of every event and tool there is: half
a second and 27 MB of a process, and a part of each word's cost. We look at five kinds of events.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any


async def events_of(received: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """The data of each event, whatever the pieces in which it comes.

    https://html.spec.whatwg.org/multipage/server-sent-events.html

    Raises:
        ValueError: An event's data is no JSON object.
    """
    rest = b""
    data: list[bytes] = []
    async for chunk in received:
        # By hand: at what else text counts as the end of a line, an answer's words may stand.
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:"))
            elif not line and data:
                event = json.loads(b"\n".join(data))
                data = []
                if not isinstance(event, dict):
                    raise ValueError("an event is no JSON object")
                yield event
