"""How far a replay is."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class ReplayProgress:
    """How far a replay is.

    Attributes:
        total: Events there are to read.
        read: Events that have been stored or skipped.
        oldest: When the first of these came into the journal.
        position: When the last of these did.
        calls: Events of calls.
        acts: What messaging did.
        restored: Those among them that were not in the database.
        skipped: Events that can't be understood or stored, as they couldn't before, and acts about
            messages that are not there.
        failed: Those among them that failed in a way nobody foresaw.
        reasons: Stream and sequence, and reason, of the first skipped ones.
        complete: Whether it has come to the end.
    """

    total: int = 0
    read: int = 0
    oldest: datetime | None = None
    position: datetime | None = None
    messages: int = 0
    stored: int = 0
    reports: int = 0
    applied: int = 0
    parked: int = 0
    calls: int = 0
    acts: int = 0
    restored: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    @property
    def percent(self) -> float:
        """From 0 to 100."""
        return min(100 * self.read / self.total, 100.0) if self.total else 100.0
