"""Many rows of one table, or many values, in one statement.

PostgreSQL gets them as one JSON parameter: with one for each value, psycopg takes longer to
prepare the statement than the server to run it, and the statement differs with the number of rows.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.selectable import NamedFromClause

from services.messaging.store.models import Base

_ROW_ID = "row_id"


async def insert_many(
    connection: AsyncConnection,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *returning: Any,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Insert rows that all have the same columns, leaving out those whose unique keys are taken.

    Returns the columns `returning` of what was inserted, in no particular order.
    """
    if not rows:
        return ()
    names = list(rows[0])
    if connection.dialect.name == "postgresql":
        source = _recordset(table, names)
        statement = (
            postgresql.insert(table)
            .from_select(names, select(*(source.c[name] for name in names)))
            .on_conflict_do_nothing()
        )
        if not returning:
            await connection.execute(statement, _json_rows(rows))
            return ()
        return (await connection.execute(statement.returning(*returning), _json_rows(rows))).all()
    plain = sqlite.insert(table).on_conflict_do_nothing()
    if not returning:
        await connection.execute(plain, rows)
        return ()
    return (await connection.execute(plain.returning(*returning), rows)).all()


async def update_many(
    connection: AsyncConnection, table: type[Base], changes: Mapping[int, Mapping[str, Any]]
) -> None:
    """Set columns of rows by id; every row the same columns."""
    if not changes:
        return
    rows = [{_ROW_ID: row_id, **values} for row_id, values in changes.items()]
    names = [name for name in rows[0] if name != _ROW_ID]
    row_id = inspect(table).primary_key[0]
    if connection.dialect.name == "postgresql":
        source = _recordset(table, [_ROW_ID, *names])
        values: dict[str, Any] = {name: source.c[name] for name in names}
        statement = update(table).where(row_id == source.c[_ROW_ID]).values(values)
        await connection.execute(statement, _json_rows(rows))
        return
    values = {name: bindparam(name) for name in names}
    await connection.execute(update(table).where(row_id == bindparam(_ROW_ID)).values(values), rows)


def one_of(
    connection: AsyncConnection, where: QueryableAttribute[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Whether a column has one of many values; on PostgreSQL they are one parameter."""
    if connection.dialect.name == "postgresql":
        return where == any_(literal(list(values), postgresql.ARRAY(where.type)))
    return where.in_(values)


def _recordset(table: type[Base], names: Sequence[str]) -> NamedFromClause:
    """The parameter `rows` as a table with columns of the types that `table` has."""
    columns = inspect(table).columns
    types = {name: columns[name].type for name in names if name != _ROW_ID}
    types[_ROW_ID] = inspect(table).primary_key[0].type
    document: ColumnElement[Any] = cast(bindparam("rows", type_=Text), postgresql.JSON)
    return (
        func.json_to_recordset(document)
        .table_valued(*(column(name, types[name]) for name in names), name="source")
        .render_derived(with_types=True)
    )


def _json_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {"rows": json.dumps(rows, default=datetime.isoformat)}
