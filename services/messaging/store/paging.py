"""Where a page ends: after so many rows, or sooner because their texts are long.

A text may have 65,536 characters, so that two hundred of them are more than an answer may hold. The
database is asked for the rows' lengths first, and what doesn't fit isn't read.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Text, cast, func

from services.messaging.store.message_models import MessageRow
from services.messaging.store.rows import EVENT_ERROR, EVENT_TEXT

AnyRow = Row[*tuple[Any, ...]]

PAGE_CHARACTERS: Final = 128 * 1024
"""A page ends with the row that reaches this: at 512 KiB in any script, and one text more."""


def _length(text: ColumnElement[Any]) -> ColumnElement[int]:
    return func.coalesce(func.length(text), 0)


MESSAGE_LENGTH: Final = (
    func.length(MessageRow.body)
    + func.length(cast(MessageRow.media, Text))
    + _length(cast(MessageRow.template, Text))
    + _length(MessageRow.error_message.expression)
)
"""Characters of whatever may be long in a row of `messages`."""

EVENT_LENGTH: Final = _length(EVENT_TEXT) + _length(EVENT_ERROR)
"""The same of what `select_events` reads."""


def fitting(rows: Sequence[AnyRow]) -> Sequence[AnyRow]:
    """The first of the rows, as many as fit on a page; of each the `length` counts."""
    before = 0
    for number, row in enumerate(rows):
        if before >= PAGE_CHARACTERS:
            return rows[:number]
        before += row.length
    return rows
