"""`python -m tests.fuzz <parser> <seconds>`: look for input that it can't take.

What the fuzzer finds of new paths it keeps in .fuzz/corpus for the next time; input that breaks a
promise in .fuzz/<parser>-crash-…, and the exit status isn't 0 then. Such a file, made small, is
to become a seed: tests take all seeds.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["services", "json", "urllib"]):
    from tests.fuzz.targets import TARGETS

_SEEDS = Path(__file__).parent / "seeds"
_OUTPUT = Path(".fuzz")


def main(parser: str, seconds: str) -> None:
    """Fuzz one parser; ends the process."""
    corpus = _OUTPUT / "corpus" / parser
    corpus.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            parser,
            f"-max_total_time={int(seconds)}",
            "-max_len=4096",
            "-timeout=30",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-artifact_prefix={_OUTPUT}/{parser}-",
            str(corpus),
            str(_SEEDS / parser),
        ],
        TARGETS[parser],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
