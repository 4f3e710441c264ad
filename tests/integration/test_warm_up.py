"""The first answer of a process."""

import asyncio
import sys

SCRIPT = """
import asyncio, sys
from services.messaging.warm_up import warm_up
before = set(sys.modules)
asyncio.run(warm_up())
loaded = set(sys.modules)
asyncio.run(warm_up())
print(len(loaded - before) > 0, sorted(set(sys.modules) - loaded))
"""


async def test_after_warming_up_an_answer_loads_nothing() -> None:
    """What is loaded at first use is loaded before the first caller."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (output.decode().strip(), process.returncode) == ("True []", 0)
