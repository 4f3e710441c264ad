"""The whole system, started once for the tests of a file."""

from collections.abc import Iterator

import pytest

from tests.support.listening import MISSED
from tests.support.stack import RunningStack, running_stack


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    variables = {
        "MISSED_CALL_REPLY": MISSED,
        "RECORDING_RETENTION": "none",
        "SANDBOX_RECORDING_AFTER": "0",
        "RECIPIENT_SECONDS_BETWEEN_MESSAGES": "0",
        "ASSISTANT_PAUSE_SECONDS": "0",
    }
    with running_stack(tmp_path_factory.mktemp("stack"), variables) as running:
        yield running


@pytest.fixture
def stack(running: RunningStack) -> RunningStack:
    running.reset()
    return running
