"""All benchmarks, one after the other, and their results in one table.

Each is a module of its own that can be run by itself: `python -m benchmarks.edge --help`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import results

_ALL = (
    "footprint",
    "edge",
    "consumer",
    "through",
    "sending",
    "voice",
    "health",
    "reading",
)


def main() -> int:
    """Run what was asked for; 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=", ".join(_ALL))
    parser.add_argument("--quick", action="store_true", help="a short form of each")
    parser.add_argument("--json", type=Path, help="file of results to bring up to date")
    parser.add_argument(
        "--into", type=Path, help="paper whose table is to show what the file holds"
    )
    options = parser.parse_args()
    names = options.names or _ALL
    if unknown := set(names) - set(_ALL):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        file = options.json or Path(folder) / "results.json"
        for number, name in enumerate(names, 1):
            results.say(f"{number} of {len(names)}: {name}")
            began = time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
            # Each in a process of its own: one must not be slowed by what another has left behind.
            if subprocess.run([*command, *(["--quick"] if options.quick else [])]).returncode:
                failed.append(name)
            results.say(f"{name} took {time.monotonic() - began:.0f} s")
        kept = results.read(file)
    results.show(kept["benchmarks"])
    if options.into is not None:
        results.put_into(options.into, kept)
    for name in failed:
        results.say(f"{name} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
