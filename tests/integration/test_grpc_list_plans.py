"""Lists cost the same however long the history is: counted in steps and rows, not in seconds."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from sqlalchemy import event

from services.messaging.store.database import Database
from tests.support.databases import PostgresServer, migrated
from tests.support.history import Question, fill, questions
from tests.support.sending import open_database

SMALL, LARGE = 2_000, 20_000
_MOST_ROWS = LARGE // 4
"""Of the messages no plan reads so many; a small table beside them it may read whole."""


async def asked(database: Database, question: Question) -> list[tuple[str, Any]]:
    """The queries that answering a question takes, as the driver gets them."""
    queries: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            queries.append((statement, parameters))

    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        await question()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert queries
    return queries


def steps(url: str, queries: list[tuple[str, Any]]) -> int:
    """Instructions that SQLite's machine executes."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        connection.set_progress_handler(step, 1)
        for statement, parameters in queries:
            connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()
    return count


def rows(url: str, queries: list[tuple[str, Any]]) -> int:
    """Rows that PostgreSQL reads, those that it throws away included."""

    def read(plan: Mapping[str, Any]) -> float:
        own: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        below: Iterable[Mapping[str, Any]] = plan.get("Plans", ())
        return own * float(plan["Actual Loops"]) + sum(map(read, below))

    with psycopg.connect(url) as connection:
        plans = [
            plan
            for statement, parameters in queries
            for [[plan]] in connection.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            )
        ]
    return round(sum(read(plan["Plan"]) for plan in plans))


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
