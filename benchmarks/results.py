"""The form that every benchmark gives its results, and what is made of them."""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support.nats import nats_binary

RATIO = "x"
_COLUMNS = ("benchmark", "what", "median", "spread", "against", "wanted", "details")
_SYNCS = 200
_BEGIN = "<!-- results:"
_END = "<!-- end of results -->"


@dataclass(frozen=True)
class Result:
    """One comparison, or one figure that stands by itself.

    Attributes:
        what: Without the benchmark's name.
        values: One for each round. A ratio is of what was measured in the same round.
        against: What a ratio compares with.
        unit: Of the values.
        wanted: The goal, if there is one.
        details: The absolute figures behind a ratio.
    """

    what: str
    values: Sequence[float]
    against: str = ""
    unit: str = RATIO
    wanted: str = ""
    details: str = ""

    @property
    def median(self) -> str:
        return self._shown(statistics.median(self.values))

    @property
    def spread(self) -> str:
        """The lowest and the highest round."""
        if len(self.values) == 1:
            return ""
        return f"{self._shown(min(self.values))} to {self._shown(max(self.values))}"

    def _shown(self, value: float) -> str:
        if self.unit == RATIO:
            return f"{value:.2f} {RATIO}"
        return f"{value:,.{0 if value >= 100 else 1}f} {self.unit}"


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Sequence[Result]],
    *,
    quick: Mapping[str, Any],
) -> None:
    """A benchmark's command line: measure, and print the results or put them into a file.

    Args:
        quick: Values of the parser's own options that `--quick` stands for.
    """
    parser.add_argument("--quick", action="store_true", help="a short form")
    parser.add_argument("--json", type=Path, help="file of results to bring up to date")
    parser.add_argument("--into", type=Path, help="paper whose table is to show that file")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**quick)
    options = parser.parse_args()
    if options.into and not options.json:
        parser.error("--into needs --json")
    name = Path(sys.argv[0]).stem
    began = time.perf_counter()
    found = measure(options)
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began),
        "quick": options.quick,
        "results": [asdict(result) for result in found],
    }
    if options.json is None:
        show({name: entry})
        return
    kept = read(options.json)
    kept["machine"] = machine()
    kept["benchmarks"][name] = entry
    options.json.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    if options.into is not None:
        put_into(options.into, kept)


def read(file: Path) -> dict[str, Any]:
    """What a file of results holds; it needn't be there yet."""
    if not file.exists() or not file.stat().st_size:
        return {"machine": {}, "benchmarks": {}}
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def show(benchmarks: Mapping[str, Any]) -> None:
    """Print results as one table."""
    table = Table(*_COLUMNS)
    # Wider than a log's 80 columns, where there is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 160)
    before = ""
    for name, *cells in _rows(benchmarks):
        if before and name != before:
            table.add_section()
        table.add_row("" if name == before else name, *cells)
        before = name
    console.print(table)


def markdown(kept: Mapping[str, Any]) -> str:
    """Results as a table of Markdown, and the machine that they come from."""
    lines = [f"- {name}: {value}" for name, value in kept["machine"].items()]
    lines += ["", f"| {' | '.join(_COLUMNS)} |", f"| {' | '.join('---' for _ in _COLUMNS)} |"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(kept["benchmarks"])]
    return "\n".join(lines) + "\n"


def put_into(paper: Path, kept: Mapping[str, Any]) -> None:
    """Replace what stands between a paper's marks.

    Raises:
        ValueError: The paper has no marks.
    """
    before, mark, rest = paper.read_text().partition(_BEGIN)
    comment, _, rest = rest.partition("-->\n")
    _, end, after = rest.partition(_END)
    if not mark or not end:
        raise ValueError(f"{paper} has no place for results")
    paper.write_text(f"{before}{mark}{comment}-->\n{markdown(kept)}{end}{after}")


def _rows(benchmarks: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, entry in benchmarks.items():
        for values in entry["results"]:
            one = Result(**values)
            yield name, one.what, one.median, one.spread, one.against, one.wanted, one.details


def machine() -> dict[str, str]:
    """What the figures depend on."""
    server = subprocess.run([nats_binary(), "--version"], capture_output=True, text=True)
    return {
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "disk": f"{_sync_ms():.2f} ms for 4 KiB and an fdatasync, median of {_SYNCS}",
        "system": f"Linux {platform.release()}",
        "Python": platform.python_version(),
        "NATS": server.stdout.strip().rpartition("v")[2],
        "SQLite": sqlite3.sqlite_version,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sync_ms() -> float:
    """What an acknowledgement waits for at the least, where the benchmarks keep their data."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)
