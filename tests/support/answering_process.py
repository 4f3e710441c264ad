"""A process that answers calls, whose transcriber never answers.

`python -m tests.support.answering_process DATABASE_URL` takes a turn of a caller and writes
"transcribing" once it works on it.
"""

import asyncio
import sys

from tests.support.turns import RealClock, open_line


async def _main(url: str) -> None:
    async with open_line(url, clock=RealClock()) as line:
        line.transcriber.gate.shut()
        await line.says()
        await line.transcriber.gate.reached.wait()
        sys.stdout.write("transcribing\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
