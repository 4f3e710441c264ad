"""What `make fuzz` begins with, and whatever it has found."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.support.attacks import Attacks

SEEDS = sorted((Path(__file__).parents[1] / "fuzz" / "seeds").glob("*/*"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.parent.name}-{seed.name}")
def test_seed(seed: Path, attacks: Attacks) -> None:
    """No input that was found before breaks a promise of its parser."""
    TARGETS[seed.parent.name](seed.read_bytes())
    attacks.count("seeds of the fuzzer", through=False)
