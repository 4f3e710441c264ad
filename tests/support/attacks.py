"""A pytest plugin that counts attacks and prints at the end how many were tried and got through."""

from collections import Counter
from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

_PROPERTY = "attacks"


class Attacks:
    """What one test tried.

    Attributes:
        tried: Attempts by kind.
        through: Those that got through, by kind.
    """

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.through: Counter[str] = Counter()

    def count(self, kind: str, *, through: bool, evidence: object = None) -> None:
        """Take note of one attack.

        Raises:
            AssertionError: It got through.
        """
        self.tried[kind] += 1
        self.through[kind] += through
        assert not through, (kind, evidence)


@pytest.fixture
def attacks(request: pytest.FixtureRequest) -> Iterator[Attacks]:
    """Counts for the summary."""
    attacks = Attacks()
    yield attacks
    # Reports carry these from xdist's workers to where the summary is written.
    for kind, tried in attacks.tried.items():
        request.node.user_properties.append((_PROPERTY, (kind, tried, attacks.through[kind])))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the counts of all tests, by kind."""
    tried: Counter[str] = Counter()
    through: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "teardown":
                for name, value in report.user_properties:
                    if name == _PROPERTY and isinstance(value, tuple | list):
                        tried[value[0]] += value[1]
                        through[value[0]] += value[2]
    if tried:
        terminalreporter.section("attacks: tried, got through")
        for kind, number in sorted(tried.items()):
            terminalreporter.write_line(f"{number:7} {through[kind]:4}  {kind}")
        terminalreporter.write_line(f"{tried.total():7} {through.total():4}  in all")
