"""What a fault is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos import disks
from tests.chaos.stack import DatabaseKind
from tests.chaos.world import World

Strike = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        says: What it is, for the table.
        database: Where it can only be brought about.
        spares_requests: It is an ordinary event of operation: no request may fail.
        needs_replicas: That holds only where messaging has another replica.
        loses: It shows what is lost without what normally prevents it.
        traces: It needs `strace`.
        calls: It needs telephone calls under way.
    """

    name: str
    says: str
    strike: Strike
    database: DatabaseKind | None = None
    spares_requests: bool = False
    needs_replicas: bool = False
    loses: bool = False
    traces: bool = False
    calls: bool = False

    def possible(self, database: DatabaseKind) -> bool:
        """Whether it can be brought about on this machine, with this database."""
        return self.database in (None, database) and (not self.traces or disks.can_trace())
