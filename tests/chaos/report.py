"""What a run came to, as a table and as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.runner import Round


def table(rounds: Sequence[Round]) -> Table:
    """A line for each fault and database."""
    drawn = Table(title="Chaos")
    for heading in ("fault", "database", "rounds", "acknowledged", "sends", "unanswered",
                    "recovery (median, worst)", "settled (worst)", "broken"):  # fmt: skip
        drawn.add_column(heading, justify="left" if heading in ("fault", "database") else "right")
    for line in summary(rounds):
        broken = line["broken"]
        drawn.add_row(
            line["fault"],
            line["database"],
            str(line["rounds"]),
            str(line["acknowledged"]),
            str(line["sends"]),
            str(line["unanswered"]),
            f"{line['recovery_median']:.1f} s, {line['recovery_worst']:.1f} s",
            f"{line['settled_worst']:.1f} s",
            f"[red]{broken}[/]" if broken else "0",
        )
    return drawn


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The table's lines."""
    lines = []
    for fault, database in dict.fromkeys((one.fault, one.database) for one in rounds):
        some = [one for one in rounds if (one.fault, one.database) == (fault, database)]
        recovery = [one.recovery_seconds for one in some]
        lines.append(
            {
                "fault": fault,
                "says": FAULTS[fault].says,
                "database": database,
                "rounds": len(some),
                "acknowledged": sum(one.events for one in some),
                "sends": sum(one.sends for one in some),
                "unanswered": sum(one.failures for one in some),
                "recovery_median": statistics.median(recovery),
                "recovery_worst": max(recovery),
                "settled_worst": max(one.settle_seconds for one in some),
                "broken": sum(bool(one.broken) for one in some),
            }
        )
    return lines


def write_json(file: Path, rounds: Sequence[Round], *, seed: int) -> None:
    """Everything, for other programs."""
    content = {
        "seed": seed,
        "faults": summary(rounds),
        "memory_mib": memory(rounds),
        "rounds": [dataclasses.asdict(one) for one in rounds],
    }
    file.write_text(json.dumps(content, indent=2))


def memory(rounds: Sequence[Round]) -> dict[str, list[float]]:
    """Of each process the resident memory after its first and after its last round, in MiB."""
    found: dict[str, list[float]] = {}
    for one in rounds:
        for name, mib in one.memory_mib.items():
            found.setdefault(f"{one.database} {name}", []).append(round(mib, 1))
    return {name: [series[0], max(series), series[-1]] for name, series in found.items()}
