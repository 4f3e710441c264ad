"""Lists cost the same however long the history is: counted in steps and rows, not in seconds."""

from typing import Any

from tests.support.databases import PostgresServer, migrated
from tests.support.history import fill, questions
from tests.support.plans import asked, rows, steps
from tests.support.sending import open_database

SMALL, LARGE = 2_000, 20_000
_MOST_ROWS = LARGE // 4
"""Of the messages no plan reads so many; a small table beside them it may read whole."""


async def test_sqlite_takes_no_more_steps(tmp_path: Any) -> None:
    """Ten times the history costs no list more steps."""
    costs: list[dict[str, int]] = []
    for size in (SMALL, LARGE):
        url = migrated(f"sqlite:///{tmp_path}/{size}.db")
        async with open_database(url) as database:
            await fill(database, size)
            queries = {
                name: await asked(database, question)
                for name, question in questions(database, size).items()
            }
        costs.append({name: steps(url, one) for name, one in queries.items()})
    small, large = costs
    grown = {name: (small[name], large[name]) for name in small if large[name] > 1.3 * small[name]}
    assert grown == {}


async def test_postgresql_reads_no_more_rows(postgres: PostgresServer) -> None:
    """No list reads the messages beyond its page, whatever the planner makes of it."""
    with postgres.database() as url:
        migrated(url)
        async with open_database(url) as database:
            await fill(database, LARGE)
            queries = {
                name: await asked(database, question)
                for name, question in questions(database, LARGE).items()
            }
        costs = {name: rows(url, one) for name, one in queries.items()}
    assert {name: cost for name, cost in costs.items() if cost > _MOST_ROWS} == {}
