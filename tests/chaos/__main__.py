"""`python -m tests.chaos`: break things on this machine, and check that nothing was lost."""

import argparse
import asyncio
import contextlib
import fnmatch
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS
from tests.chaos.report import memory, table, totals, write_json
from tests.chaos.runner import Round, rounds
from tests.chaos.stack import DatabaseKind


def main() -> int:
    """Run the rounds that were asked for; 1 when a promise was broken."""
    options = _options()
    # Wider than a log's 80 columns, where there is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"Seed {options.seed}: the same choices again with --seed {options.seed}")
    done: list[Round] = []
    # What was found is shown also when somebody has seen enough.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_run(options, console, done))
    if not done:
        return 1
    console.print(table(done))
    for name, (first, most, last) in memory(done).items():
        console.print(f"{name}: {first} MiB after the first round, {most} at most, {last} at last")
    if options.json:
        write_json(options.json, done, seed=options.seed)
    came_to = totals(done)
    console.print(
        f"{came_to['rounds']} rounds with {came_to['faults']} faults: {came_to['events']} events"
        f" acknowledged, {came_to['sends']} sends, {came_to['lost']} lost, {came_to['doubled']}"
        f" doubled, settled within {came_to['settled_worst']:.0f} s"
    )
    for one in done:
        for what in one.violations:
            console.print(f"{one}: {what}", markup=False, style="red")
    return 1 if came_to["broken"] else 0


async def _run(options: argparse.Namespace, console: Console, done: list[Round]) -> None:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    for database in options.databases:
        wanted = [fault for fault in options.faults if fault.possible(database)]
        plan = _plan(wanted, options)
        with tempfile.TemporaryDirectory(prefix="chaos") as folder:
            with Progress(*columns, console=console) as progress:
                bar = progress.add_task(f"Starting, {database}", total=len(plan))
                async with rounds(
                    Path(folder),
                    database=database,
                    seed=options.seed,
                    size="short" if options.short else "long",
                    rate=options.rate,
                ) as runner:
                    for number, faults in plan:
                        names = ", ".join(fault.name for fault in faults)
                        progress.update(bar, description=f"{database} {names}")
                        one = await runner.run(faults, number, progress.console.print)
                        done.append(one)
                        progress.advance(bar)
                        progress.console.print(str(one), markup=False, highlight=False)
                        for what in one.violations:
                            progress.console.print(f"  {what}", markup=False, style="red")
            if options.keep:
                kept = options.keep / f"{database}-{int(time.time())}"
                shutil.copytree(Path(folder) / "data" / "logs", kept)
                console.print(f"Logs: {kept}")


def _plan(
    wanted: Sequence[Fault], options: argparse.Namespace
) -> list[tuple[int, Sequence[Fault]]]:
    """Which faults make up each round."""
    chance = random.Random(options.seed)
    alone = [fault for fault in wanted if fault.loses or options.together == 1]
    plan: list[tuple[int, Sequence[Fault]]] = []
    for number in range(1, options.rounds + 1):
        # Callers are promised more where nothing else goes wrong.
        for calls in (False, True):
            others = [fault for fault in wanted if fault not in alone and fault.calls is calls]
            chance.shuffle(others)
            for start in range(0, len(others), options.together):
                # What must spare requests comes first: a fault before it may still have
                # consequences.
                some = others[start : start + options.together]
                plan.append((number, sorted(some, key=lambda one: not one.spares_requests)))
        plan += [(number, [fault]) for fault in alone]
    return plan


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=_faults, default=list(FAULTS.values()),
                        help="which, separated by commas, * for any letters; of "
                        + ", ".join(FAULTS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="how often each")
    parser.add_argument("--together", type=int, default=1,
                        help="so many faults one after the other in a round")  # fmt: skip
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--databases", type=_databases, default=list(get_args(DatabaseKind)))
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--short", action="store_true", help="faults that last seconds")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--keep", type=Path, help="keep the logs in this folder")
    return parser.parse_args()


def _faults(value: str) -> Sequence[Fault]:
    found: list[str] = []
    for pattern in value.split(","):
        if not (matching := fnmatch.filter(FAULTS, pattern)):
            raise argparse.ArgumentTypeError(f"there is no fault {pattern}")
        found += matching
    return [FAULTS[name] for name in found]


def _databases(value: str) -> Sequence[str]:
    if not set(value.split(",")) <= set(get_args(DatabaseKind)):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(get_args(DatabaseKind))}")
    return value.split(",")


if __name__ == "__main__":
    sys.exit(main())
