"""How the database is: whether it answers, how fast, and at which migration."""

import time
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from services.common.errors import UnavailableError
from services.common.monitor import Finding, Findings
from services.messaging.store.database import Database
from services.messaging.store.revisions import known_revisions, newest

COMPONENT: Final = "database"
_FIX: Final = "run `python -m services.messaging.migrate`"
_TRY_SECONDS: Final = 4.0
_REVISION: Final = text("SELECT version_num FROM alembic_version")


class DatabaseCondition:
    """Asks the database; one that a newer program has migrated further is as good."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest = newest()
        self._known = known_revisions()
        self._try_at = 0.0

    async def _writes(self) -> bool:
        """Whether it can write, by what others have tried just now, and a try now and then."""
        now = time.monotonic()
        if not self._database.refusing and now >= self._try_at:
            try:
                await self._database.check_writing()
            except UnavailableError:
                return False
            self._try_at = now + _TRY_SECONDS
        return not self._database.refusing

    async def look(self) -> Findings:
        """What is found now."""
        began = time.perf_counter()
        try:
            async with self._database.read() as connection:
                await connection.execute(select(1))
                try:
                    found = await connection.execute(_REVISION)
                except (OperationalError, ProgrammingError):
                    return {COMPONENT: Finding("down", f"the database was never migrated: {_FIX}")}
                revision = found.scalar()
        except UnavailableError:
            return {COMPONENT: Finding("down", "the database doesn't answer")}
        details = {
            "kind": self._database.dialect,
            "migration": revision,
            "newest_migration": self._newest,
            "round_trip_seconds": round(time.perf_counter() - began, 6),
        }
        if revision is None or (revision in self._known and revision != self._newest):
            return {COMPONENT: Finding("down", f"the database needs migrating: {_FIX}", details)}
        if not await self._writes():
            reason = "the database can't write: is its disk full?"
            return {COMPONENT: Finding("down", reason, details)}
        return {COMPONENT: Finding("ok", details=details)}
