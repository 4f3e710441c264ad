"""The stack of containers, for `make compose-test` alone: it takes minutes and an engine."""

import os
from collections.abc import Iterator

import pytest

from tests.support.compose import ComposeStack

if "SWITCHBOARD_COMPOSE" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[ComposeStack]:
    """The whole stack with the sandbox, its images built and all its parts healthy."""
    profiles = getattr(request.module, "PROFILES", ("sandbox",))
    stack = ComposeStack("switchboard-test", profiles, getattr(request.module, "VARIABLES", {}))
    stack.compose("build", seconds=1200)
    try:
        stack.compose("up", "--detach", "--wait", seconds=400)
        yield stack
        if request.session.testsfailed:
            stack.report(stack.compose("logs", "--tail=60", check=False).stdout)
    finally:
        stack.compose("down", "--volumes", "--timeout=5", check=False)
