"""What processes use, as Linux counts it."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(process: int) -> float:
    """Processor time of a process and of the children it has now, the system's share included."""
    folder = Path("/proc") / str(process)
    # The name in parentheses may hold spaces; 11 and 12 after it are user and system time.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    return own + sum(processor_seconds(child) for child in _children(process))


def memory_mb(process: int) -> tuple[float, float]:
    """Resident memory (RSS), and its proportional share (PSS): what others map too, divided."""
    rollup = (Path("/proc") / str(process) / "smaps_rollup").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def _children(process: int) -> list[int]:
    folder = Path("/proc") / str(process) / "task" / str(process)
    return [int(child) for child in (folder / "children").read_text().split()]
