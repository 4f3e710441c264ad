"""`make compose-test`: the tests of the stack, or a sentence where there is no engine."""

import os
import sys

import pytest

from tests.support.compose import engine_answers


def main() -> int:
    """Run them; 0 as well where there is nothing to run them with."""
    if not engine_answers():
        sys.stdout.write(
            "No Docker engine with `docker compose` answers here: the stack was not tried.\n"
        )
        return 0
    os.environ["SWITCHBOARD_COMPOSE"] = "1"
    return pytest.main(["-rA", "-s", "-v", *(sys.argv[1:] or ["tests/compose"])])


if __name__ == "__main__":
    sys.exit(main())
