"""In which order tests run that several processes share."""

import itertools
from pathlib import Path

import pytest

_SLOW = ("bridge", "chaos", "e2e")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each process begin with some of the slow files: none is left to one of them at the end.

    xdist gives each an equal part of the list, and then who has nothing left takes from the end of
    others' parts.
    """
    processes: int = getattr(config, "workerinput", {}).get("workercount", 1)
    slow = [item for item in items if _is_slow(item.path)]
    others = iter([item for item in items if not _is_slow(item.path)])
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    files = itertools.groupby(slow, key=lambda item: item.path)
    for (_, file), part in zip(files, itertools.cycle(parts), strict=False):
        part += file
    left = len(items)
    for remaining, part in zip(range(processes, 0, -1), parts, strict=True):
        share = left // remaining
        left -= share
        part += itertools.islice(others, max(0, share - len(part)))
    items[:] = [*itertools.chain.from_iterable(parts), *others]


def _is_slow(path: Path) -> bool:
    return any(folder in path.parts for folder in _SLOW)
