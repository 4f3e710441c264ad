"""The metrics' names, labels and page, as they are declared in the code."""

import re
import shutil
import subprocess
from types import ModuleType
from typing import Any

import pytest

from tests.support.tools import ROOT, load_tool

FORBIDDEN = {"address", "body", "call", "contact", "from", "id", "message", "number", "path",
             "phone", "recipient", "sender", "sid", "text", "to", "url"}  # fmt: skip


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/list_metrics.py."""
    return load_tool("list_metrics")


def test_the_page_lists_what_the_code_declares(tool: ModuleType) -> None:
    """A metric that is added, renamed or dropped must be followed by `make metrics`."""
    assert (ROOT / "docs/metrics.md").read_text() == tool.page()


def test_names_follow_the_conventions(tool: ModuleType) -> None:
    """Our prefix, base units, `_total` on counters alone, and labels that are bounded."""
    for metric in tool.metrics():
        assert re.fullmatch(r"switchboard_[a-z]+(_[a-z]+)*", metric.name), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert not re.search(r"_(ms|milliseconds|minutes|kb|kilobytes|percent)\b", metric.name)
        assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_bytes")), metric
        assert not FORBIDDEN & set(metric.labels), metric


def test_no_name_is_declared_twice(tool: ModuleType) -> None:
    """One name means one thing, whichever service it comes from."""
    names = [metric.name for metric in tool.metrics()]
    assert len(names) == len(set(names))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't on this machine")
def test_promtool_has_nothing_to_say(tool: ModuleType) -> None:
    """Prometheus' own linter finds nothing wrong with names and descriptions."""
    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input="".join(_exposed(metric) for metric in tool.metrics()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def _exposed(metric: Any) -> str:
    name, kind = metric.name, metric.kind
    labels = ",".join(f'{label}="a"' for label in metric.labels)
    head = f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n"
    if kind != "histogram":
        return f"{head}{name}{{{labels}}} 1\n"
    comma = "," if labels else ""
    return (
        f'{head}{name}_bucket{{{labels}{comma}le="+Inf"}} 1\n'
        f"{name}_sum{{{labels}}} 1\n{name}_count{{{labels}}} 1\n"
    )
