"""The time, handed in, and what waits for it."""

from datetime import datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The time now; aware, UTC."""

    def __call__(self) -> datetime: ...


class Schedule(Protocol):
    """What is due at a time, or claimed until one."""

    async def latest_ahead(self) -> datetime | None:
        """The latest time that something was stored at of late, if that is still to come.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def bring_forward(self, *, longest_lease: timedelta) -> int:
        """Make due at once what would be due later, and end claims that were made for too long.

        Args:
            longest_lease: A claim that ends later than so long from now was made by a wrong
                clock. It ends then.

        Returns:
            How many rows were changed.

        Raises:
            UnavailableError: The database can't be reached; some may have been changed.
        """
        ...
