"""What a fault may touch."""

import asyncio
import random
from dataclasses import dataclass
from typing import Literal

from tests.chaos.stack import ChaosStack

Size = Literal["short", "long"]


@dataclass(frozen=True)
class World:
    """The system, and the choices of one round.

    Attributes:
        chance: The only source of choices, so that a seed brings them back.
    """

    stack: ChaosStack
    chance: random.Random
    size: Size

    async def hold(self, short: float, long: float) -> None:
        """Let it last: in the short form so long, in the long form so long."""
        await asyncio.sleep(short if self.size == "short" else long)
