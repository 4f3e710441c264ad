"""The time, handed in."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time now; aware, UTC."""

    def __call__(self) -> datetime: ...
