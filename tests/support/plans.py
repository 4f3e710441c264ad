"""What a question costs a database: counted in steps and rows, not in seconds."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import psycopg
from sqlalchemy import event

from services.messaging.store.database import Database

Question = Callable[[], Awaitable[object]]


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
