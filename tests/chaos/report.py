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

_HEADINGS = ("fault", "database", "times", "acknowledged", "sends", "unanswered", "recovery",
             "worst", "lost", "doubled", "broken")  # fmt: skip


def table(rounds: Sequence[Round]) -> Table:
    """A line for each fault and database."""
    drawn = Table(title="Chaos")
    for heading in _HEADINGS:
        left = heading in ("fault", "database")
        drawn.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for line in summary(rounds):
        cells = [str(line[name]) for name in _HEADINGS[:6]]
        cells += [f"{line[name]:.1f} s" for name in ("recovery_median", "recovery_worst")]
        cells += [f"[red]{line[n]}[/]" if line[n] else "0" for n in _HEADINGS[8:]]
        drawn.add_row(*cells)
    return drawn


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The table's lines.

    What is found at a round's end, as what was lost or doubled, counts for each of its faults.
    """
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
                "sends": sum(strike.sends for _, strike in some),
                "unanswered": sum(strike.failures for _, strike in some),
                "recovery_median": statistics.median(recovery),
                "recovery_worst": max(recovery),
                "lost": sum(one.lost for one, _ in some),
                "doubled": sum(one.doubled for one, _ in some),
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
        "lost": sum(one.lost for one in rounds),
        "doubled": sum(one.doubled for one in rounds),
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
