"""What operators run beside Switchboard: Prometheus, Alertmanager and Grafana."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.support.promql import DEPLOY, PROMETHEUS, panel_queries, rules, selectors
from tests.support.tools import ROOT, load_tool

OTHERS = frozenset(
    {"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool isn't on this machine"
)


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules/recording.yml", "rules/alerts.yml"],
        ["test", "rules", "tests/alerts.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_takes_its_files(arguments: Sequence[str]) -> None:
    """Configuration and rules are valid, and every case of the rules' tests holds."""
    result = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("alert", rules("alerts.yml"), ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_runbook_and_both_cases(alert: dict[str, dict[str, str]]) -> None:
    """It says what to do, and is tested to fire and to be silent."""
    runbook = (ROOT / alert["annotations"]["runbook"]).read_text()
    assert runbook.startswith(f"# {alert['alert']}\n")
    for title in ("## What it means", "## Where to look", "## What to do"):
        assert title in runbook
    assert alert["labels"]["severity"] in ("critical", "warning")
    cases = [
        bool(case["exp_alerts"])
        for test in yaml.safe_load((PROMETHEUS / "tests/alerts.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert sorted(cases) == [False, True]


def test_every_runbook_belongs_to_an_alert() -> None:
    """A runbook of an alert that is gone would mislead."""
    named = {rule["annotations"]["runbook"] for rule in rules("alerts.yml")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert there == named


def test_every_query_asks_for_something_that_exists() -> None:
    """A metric that is renamed doesn't leave an alert or a panel empty in silence."""
    known = {metric.name for metric in load_tool("list_metrics").metrics()} | OTHERS
    known |= {rule["record"] for rule in rules("recording.yml")}
    queries = [rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name)]
    for query in [*queries, *(query for _, query in panel_queries())]:
        for name in selectors(query):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, query


def test_dashboards_are_made_by_their_tool() -> None:
    """A panel is changed in tools/make_dashboards.py, followed by `make dashboards`."""
    tool = load_tool("make_dashboards")
    files = {path.stem: path.read_text() for path in (DEPLOY / "grafana/dashboards").glob("*.json")}
    assert files == {uid: tool.text(uid) for uid in tool.DASHBOARDS}


def test_grafana_finds_its_data_source() -> None:
    """Panels refer to the data source that is provisioned."""
    folder = DEPLOY / "grafana/provisioning/datasources"
    [source] = yaml.safe_load((folder / "prometheus.yml").read_text())["datasources"]
    for path in (DEPLOY / "grafana/dashboards").glob("*.json"):
        assert set(re.findall(r'"uid": "(.+-prometheus)"', path.read_text())) == {source["uid"]}


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool isn't on this machine")
def test_alertmanager_takes_its_file() -> None:
    """Its configuration is valid."""
    file = Path(DEPLOY / "alertmanager/alertmanager.yml")
    subprocess.run(["amtool", "check-config", file], check=True, capture_output=True)
