"""Lists over a long history against lists over a short one.

`python -m benchmarks.reading` fills SQLite and PostgreSQL with 10 thousand and with 1 million
messages, asks both for the same pages of 50 in turns, and prints for each question the median time
at either size and their ratio, which should be about 1. That the plans use the indexes is what
`tests/integration/test_grpc_list_plans.py` checks.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import results
from benchmarks.results import Result, say
from services.messaging.store.database import Database
from tests.support.databases import PostgresServer, migrated
from tests.support.history import Question, fill, questions


async def _seconds(question: Question) -> float:
    started = time.perf_counter()
    await question()
    return time.perf_counter() - started


async def _compare(urls: list[str], sizes: list[int], rounds: int) -> Result:
    async with contextlib.AsyncExitStack() as stack:
        asked: list[dict[str, Question]] = []
        for url, size in zip(urls, sizes, strict=True):
            database = Database(
                migrated(url),
                pool_size=1,
                max_overflow=0,
                pool_timeout_seconds=30,
                slow_query_seconds=600,
            )
            stack.push_async_callback(database.close)
            await fill(database, size)
            asked.append(questions(database, size))
        say(f"{database.dialect}: ms at {sizes[0]:,} messages, at {sizes[1]:,}, ratio")
        ratios = []
        shortest, longest = [], []
        for name in asked[0]:
            times: list[list[float]] = [[], []]
            for number in range(rounds + 3):
                for measured, of_size in zip(times, asked, strict=True):
                    seconds = await _seconds(of_size[name])
                    # The first rounds fill the caches.
                    if number >= 3:
                        measured.append(seconds)
            short, long = (statistics.median(one) * 1000 for one in times)
            ratios.append(long / short)
            shortest.append(short)
            longest.append(long)
            say(f"  {name:28} {short:7.2f} {long:7.2f} {long / short:6.2f}")
        return Result(
            f"{len(ratios)} questions about {sizes[1]:,} messages, {database.dialect}",
            ratios,
            against=f"{sizes[0]:,} messages",
            wanted="about 1",
            details=f"{statistics.median(longest):.2f} ms, {statistics.median(shortest):.2f} ms",
        )


def measure(options: argparse.Namespace) -> list[Result]:
    """Compare on either database."""
    sizes: list[int] = options.messages
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        files = [f"sqlite:///{folder}/{number}.db" for number in range(2)]
        found = [uvloop.run(_compare(files, sizes, options.rounds))]
        server = PostgresServer(Path(folder) / "postgres")
        try:
            with server.database() as short, server.database() as long:
                found.append(uvloop.run(_compare([short, long], sizes, options.rounds)))
        finally:
            server.stop()
    return found


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=30)
    results.run(parser, measure, quick={"messages": [1_000, 20_000], "rounds": 10})


if __name__ == "__main__":
    main()
