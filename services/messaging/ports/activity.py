"""How much has come and gone of late."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Activity:
    """What came and went within a span of time.

    Attributes:
        messages_in: Written by contacts.
        messages_out: Written to contacts, sent or not.
        calls: Telephone calls, all of them from callers to us.
    """

    since: datetime
    messages_in: int
    messages_out: int
    calls: int


class ActivityReader(Protocol):
    """Counts by ranges of indexes, whatever has piled up before."""

    async def since(self, span: timedelta) -> Activity:
        """What came and went in the span that ends now.

        Raises:
            UnavailableError: The database doesn't answer.
        """
        ...

    async def hours(self, count: int) -> Sequence[Activity]:
        """The same for each of the last hours, the oldest first; the last is still going on.

        Raises:
            UnavailableError: The database doesn't answer.
        """
        ...
