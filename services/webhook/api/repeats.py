"""What is given twice is refused: nobody knows which of the two was meant."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Scope

from services.webhook.api.problems import invalid

_ONCE = {b"idempotency-key": "Idempotency-Key", b"last-event-id": "Last-Event-ID"}


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all its pairs, where a dictionary has the last of a name."""


def refuse_repeats(scope: Scope) -> None:
    """Check the query and the headers of a request.

    Raises:
        ProblemError: One of them is given twice.
    """
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    headers = (_ONCE[name] for name, _ in scope["headers"] if name in _ONCE)
    _refuse_first([*_twice(name for name, _ in query), *_twice(headers)])


def refuse_repeated_keys(body: bytes) -> None:
    """Check the JSON of a request; what is none is left to who reads it.

    Raises:
        ProblemError: A key is given twice.
    """
    try:
        found = list(_repeated_keys(json.loads(body, object_pairs_hook=_Pairs), ""))
    except (ValueError, RecursionError):
        return
    _refuse_first(found)


def _repeated_keys(value: Any, above: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        yield from (f"{above}{name}" for name in _twice(name for name, _ in value))
        for name, member in value:
            yield from _repeated_keys(member, f"{above}{name}.")
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _repeated_keys(member, f"{above}{number}.")


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _refuse_first(names: list[str]) -> None:
    if names:
        raise invalid(names[0], "is given twice")
