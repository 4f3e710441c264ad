"""Every query that Prometheus and Grafana are given in deploy/."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"

_WORDS = frozenset(
    {"and", "by", "histogram_quantile", "increase", "le", "max", "min", "or", "rate", "sum", "time"}
)


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of a file."""
    groups = yaml.safe_load((PROMETHEUS / "rules" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_queries() -> Iterator[tuple[str, str]]:
    """What every panel asks, and which panel it is."""
    for file in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m")
                yield f"{file.stem}: {panel['title']}", query


def selectors(query: str) -> set[str]:
    """The metrics and recorded series that a query names."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", query)
    return set(re.findall(r"[a-z][a-z0-9_:]*[a-z0-9]", bare)) - _WORDS
