"""The short form: `make chaos` brings about every fault, many times."""

from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.power import synced
from tests.chaos.runner import rounds

KILLS = ("messaging-turn-part", "messaging-settled", "kill-nats")


@pytest.mark.timeout(600)
async def test_processes_that_are_killed_under_load(tmp_path: Path) -> None:
    """Each acknowledged event is stored once, a message sent once, and a caller answered once."""
    async with rounds(
        tmp_path, database="sqlite", seed=1, size="short", rate=6, replicas=1
    ) as runner:
        done = await runner.run([FAULTS[name] for name in KILLS], 1)
    assert done.violations == []
    assert done.events
    assert done.strikes[0].calls
    assert done.sends


def test_what_a_power_cut_leaves() -> None:
    """Of a block of messages what was written before its last sync began, and nothing after."""
    trace = """\
10 pwrite64(9</nats/A/msgs/1.blk>, ""..., 32, 64) = 32
10 fsync(9</nats/A/msgs/1.blk>)        = 0
11 pwrite64(9</nats/A/msgs/1.blk>, ""..., 32, 96) = 32
12 fsync(9</nats/A/msgs/1.blk> <unfinished ...>
11 pwrite64(9</nats/A/msgs/1.blk>, ""..., 32, 128 <unfinished ...>
12 <... fsync resumed>)                 = 0
11 <... pwrite64 resumed>)              = 32
11 pwrite64(12</nats/B/msgs/7.blk>, ""..., 32, 1000) = 32
11 pwrite64(13</nats/B/index.db>, ""..., 32, 0) = 32
"""
    assert synced(trace.splitlines()) == {
        Path("/nats/A/msgs/1.blk"): 128,
        Path("/nats/B/msgs/7.blk"): 1000,
    }
