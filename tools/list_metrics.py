"""Write docs/metrics.md from the code: `python tools/list_metrics.py docs/metrics.md`."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVICES = ("webhook", "messaging", "health")

_KINDS = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "Info": "gauge"}
_SUFFIXES = {"Counter": "_total", "Info": "_info"}
_EVERYWHERE = "every service"
# Only messaging has a gRPC server.
_OWNERS = {"services/common/grpc_guard.py": "messaging"}

_HEAD = """\
# Metrics

Every service serves Prometheus metrics under `/metrics` on an internal port, which `METRICS_PORT`
and `METRICS_HOST` choose and which must never be public; without `METRICS_PORT` there is none.
health serves its own also on its main port, to those who may see the status page. Under
`make run` the ports are 8082 (webhook), 8083 (messaging) and 8084 (health), unless
`SWITCHBOARD_…_METRICS_PORT` says otherwise.

Besides those below every service has the usual `process_*` and `python_*` metrics. No label holds a
phone number, an id of a message or call, or a path. Gauges about the database and the journal are
the same in every replica of messaging: take their `max`, not their `sum`. Those about a provider
are each replica's own.

This page is made from the code by `make metrics`.
"""


@dataclass(frozen=True)
class Metric:
    """One metric as it is declared.

    Attributes:
        name: As Prometheus shows it; of a histogram without `_bucket`, `_sum` and `_count`.
        service: Who has it.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    service: str


def metrics() -> list[Metric]:
    """Every metric of the services, by service and name."""
    found: list[Metric] = []
    for path in sorted((ROOT / "services").rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        folder = where.split("/")[1]
        owner = _OWNERS.get(where, folder if folder in SERVICES else _EVERYWHERE)
        found += _declared(ast.parse(path.read_text()), owner)
    return sorted(found, key=lambda metric: (metric.service, metric.name))


def _declared(tree: ast.Module, service: str) -> Iterator[Metric]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        kind = node.func.id
        # The same names stand for other things too, such as `collections.Counter`.
        if kind not in _KINDS or not any(one.arg == "registry" for one in node.keywords):
            continue
        texts = [ast.literal_eval(one) for one in node.args]
        suffix = _SUFFIXES.get(kind, "")
        yield Metric(
            name=texts[0].removesuffix(suffix) + suffix,
            kind=_KINDS[kind],
            help=texts[1],
            labels=tuple(texts[2]) if len(texts) > 2 else (),
            service=service,
        )


def page() -> str:
    """The text of docs/metrics.md."""
    sections = [_HEAD]
    found = metrics()
    for service in (_EVERYWHERE, *SERVICES):
        rows = [
            f"| `{metric.name}` | {metric.kind} "
            f"| {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help.rstrip('.')} |"
            for metric in found
            if metric.service == service
        ]
        title = service[0].upper() + service[1:] if service == _EVERYWHERE else service
        sections.append(
            "\n".join(
                [
                    f"## {title}",
                    "",
                    "| name | type | labels | what |",
                    "| --- | --- | --- | --- |",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join(sections)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
