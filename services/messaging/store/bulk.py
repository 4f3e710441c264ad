"""Many rows of one table, or many values, in one statement.

Rows go as one JSON parameter: with one for each value, SQLAlchemy and the driver take longer to
prepare the statement than the database to run it, and the statement differs with the number of
rows. Statements are kept, because putting one together takes longer than executing it.
"""

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Row,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    inspect,
    literal,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import QueryableAttribute

from services.messaging.store.base import Base

_ROW_ID = "row_id"
# Not behind an escaped backslash.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


async def insert_many(
    connection: AsyncConnection,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *returning: QueryableAttribute[Any],
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Insert rows that all have the same columns, leaving out those whose unique keys are taken.

    Returns the columns `returning` of what was inserted, in no particular order.
    """
    if not rows:
        return ()
    dialect, names = connection.dialect.name, tuple(rows[0])
    statement = _insertion(dialect, table, names, tuple(one.key for one in returning))
    inserted = await connection.execute(statement, _parameters(dialect, names, rows))
    return inserted.all() if returning else ()


async def execute_many(
    connection: AsyncConnection, statement: Executable, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Execute what was made of `insertion` for rows that have its columns."""
    dialect = connection.dialect.name
    await connection.execute(statement, _parameters(dialect, tuple(rows[0]), rows))


async def update_many(
    connection: AsyncConnection, table: type[Base], changes: Mapping[int, Mapping[str, Any]]
) -> None:
    """Set columns of rows by id; every row the same columns."""
    if not changes:
        return
    rows = [{_ROW_ID: row_id, **values} for row_id, values in changes.items()]
    dialect, names = connection.dialect.name, tuple(rows[0])
    await connection.execute(_change(dialect, table, names), _parameters(dialect, names, rows))


def one_of(
    connection: AsyncConnection, where: QueryableAttribute[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Whether a column has one of many values; on PostgreSQL they are one parameter."""
    if connection.dialect.name == "postgresql":
        return where == any_(literal(list(values), postgresql.ARRAY(where.type)))
    return where.in_(values)


def among(dialect: str, where: QueryableAttribute[Any], parameter: str) -> ColumnElement[bool]:
    """Like `one_of`, for a statement that is kept: it gets the list of values as a parameter."""
    if dialect == "postgresql":
        return where == any_(bindparam(parameter, type_=postgresql.ARRAY(where.type)))
    return where.in_(bindparam(parameter, expanding=True))


@functools.cache
def _insertion(
    dialect: str, table: type[Base], names: Sequence[str], returning: Sequence[str]
) -> Executable:
    statement = insertion(dialect, table, names).on_conflict_do_nothing()
    columns = inspect(table).columns
    return statement.returning(*(columns[name] for name in returning)) if returning else statement


def insertion(
    dialect: str, table: type[Base], names: Sequence[str]
) -> postgresql.Insert | sqlite.Insert:
    """An insertion of many rows, to be completed by what is to happen on a conflict, and kept."""
    source = _source(dialect, table, names)
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Without a condition SQLite would take "ON CONFLICT" for that of a join.
    rows = select(*(source.c[name] for name in names)).where(true())
    return insert(table).from_select(names, rows)


@functools.cache
def _change(dialect: str, table: type[Base], names: Sequence[str]) -> Executable:
    source = _source(dialect, table, names)
    row_id = inspect(table).primary_key[0]
    values: dict[str, Any] = {name: source.c[name] for name in names if name != _ROW_ID}
    return update(table).where(row_id == source.c[_ROW_ID]).values(values)


def _source(dialect: str, table: type[Base], names: Sequence[str]) -> FromClause:
    """The parameter `rows` as a table with columns of the types that `table` has."""
    if dialect == "sqlite":
        row = func.json_each(bindparam("rows", type_=Text)).table_valued("value", name="row")
        return select(
            *(
                func.json_extract(row.c.value, literal_column(f"'$[{place}]'")).label(name)
                for place, name in enumerate(names)
            )
        ).subquery("source")
    columns = inspect(table).columns
    types = {name: columns[name].type for name in names if name != _ROW_ID}
    types[_ROW_ID] = inspect(table).primary_key[0].type
    document: ColumnElement[Any] = cast(bindparam("rows", type_=Text), postgresql.JSON)
    return (
        func.json_to_recordset(document)
        .table_valued(*(column(name, types[name]) for name in names), name="source")
        .render_derived(with_types=True)
    )


def _parameters(
    dialect: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, str]:
    if dialect == "postgresql":
        return {"rows": json.dumps(rows, default=datetime.isoformat, allow_nan=False)}
    lists = [[row[name] for name in names] for row in rows]
    # Not as ASCII: SQLite would take an escaped half of a surrogate pair, which nobody can read.
    document = json.dumps(lists, default=_sqlite_time, allow_nan=False, ensure_ascii=False)
    if "\\u0000" in document and _NUL.search(document):
        # PostgreSQL refuses it, and SQLite would cut the text off there.
        raise ValueError("a value holds a NUL character")
    return {"rows": document}


def _sqlite_time(time: datetime) -> str:
    """As SQLAlchemy writes and reads it."""
    # Nearly every time is in UTC already; what is cut off is its offset.
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return utc.isoformat(" ", "microseconds")[:-6]
