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
    for heading in ("fault", "database", "times", "acknowledged", "unanswered",
                    "recovery (median, worst)", "broken"):  # fmt: skip
        drawn.add_column(heading, justify="left" if heading in ("fault", "database") else "right")
    for line in summary(rounds):
        broken = line["broken"]
        drawn.add_row(
            line["fault"],
            line["database"],
            str(line["times"]),
            str(line["acknowledged"]),
            str(line["unanswered"]),
            f"{line['recovery_median']:.1f} s, {line['recovery_worst']:.1f} s",
            f"[red]{broken}[/]" if broken else "0",
        )
    return drawn


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The table's lines. A promise broken at a round's end counts for each of its faults."""
    lines = []
    kinds = {(strike.fault, one.database) for one in rounds for strike in one.strikes}
    for fault, database in sorted(kinds):
        some = [
            (one, strike)
            for one in rounds
            for strike in one.strikes
            if (strike.fault, one.database) == (fault, database)
        ]
        recovery = [strike.recovery_seconds for _, strike in some]
        lines.append(
            {
                "fault": fault,
                "says": FAULTS[fault].says,
                "database": database,
                "times": len(some),
                "acknowledged": sum(strike.events for _, strike in some),
                "unanswered": sum(strike.failures for _, strike in some),
                "recovery_median": statistics.median(recovery),
                "recovery_worst": max(recovery),
                "broken": sum(bool(one.broken or strike.broken) for one, strike in some),
            }
        )
    return lines


def totals(rounds: Sequence[Round]) -> dict[str, Any]:
    """What all rounds came to together."""
    return {
        "rounds": len(rounds),
        "faults": sum(len(one.strikes) for one in rounds),
        "events": sum(one.events for one in rounds),
        "sends": sum(one.sends for one in rounds),
        "settled_worst": max(one.settle_seconds for one in rounds),
        "broken": sum(bool(one.violations) for one in rounds),
    }


def write_json(file: Path, rounds: Sequence[Round], *, seed: int) -> None:
    """Everything, for other programs."""
    content = {
        "seed": seed,
        "totals": totals(rounds),
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
