"""Lists cost the same however long the history is: counted in steps and rows, not in seconds."""

from pathlib import Path

from tests.support.databases import PostgresServer
from tests.support.history import fill, questions
from tests.support.plans import grown, rows_read

SMALL, LARGE = 2_000, 20_000
_MOST_ROWS = LARGE // 4
"""Of the messages no plan reads so many; a small table beside them it may read whole."""


async def test_sqlite_takes_no_more_steps(tmp_path: Path) -> None:
    """Ten times the history costs no list more steps."""
    assert await grown(tmp_path, fill, questions, small=SMALL, large=LARGE) == {}


async def test_postgresql_reads_no_more_rows(postgres: PostgresServer) -> None:
    """No list reads the messages beyond its page, whatever the planner makes of it."""
    costs = await rows_read(postgres, fill, questions, size=LARGE)
    assert {name: cost for name, cost in costs.items() if cost > _MOST_ROWS} == {}
