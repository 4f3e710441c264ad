"""What a question costs a database: counted in steps and rows, not in seconds."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import event

from services.messaging.store.database import Database
from tests.support.databases import PostgresServer, migrated
from tests.support.sending import open_database

Question = Callable[[], Awaitable[object]]
Fill = Callable[[Database, int], Awaitable[None]]
Questions = Callable[[Database, int], Mapping[str, Question]]


async def grown(
    folder: Path, fill: Fill, questions: Questions, *, small: int, large: int
) -> dict[str, tuple[int, int]]:
    """Questions that take SQLite clearly more steps with more data: the steps with little and
    with much."""
    costs: list[dict[str, int]] = []
    for size in (small, large):
        url = migrated(f"sqlite:///{folder}/{size}.db")
        async with open_database(url) as database:
            queries = await _filled(database, fill, questions, size)
        costs.append({name: steps(url, one) for name, one in queries.items()})
    little, much = costs
    return {name: (little[name], much[name]) for name in little if much[name] > 1.3 * little[name]}


async def rows_read(
    postgres: PostgresServer, fill: Fill, questions: Questions, *, size: int
) -> dict[str, int]:
    """How many rows PostgreSQL reads for each question."""
    with postgres.database() as url:
        migrated(url)
        async with open_database(url) as database:
            queries = await _filled(database, fill, questions, size)
        return {name: rows(url, one) for name, one in queries.items()}


async def _filled(
    database: Database, fill: Fill, questions: Questions, size: int
) -> dict[str, list[tuple[str, Any]]]:
    await fill(database, size)
    return {
        name: await asked(database, question)
        for name, question in questions(database, size).items()
    }


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
