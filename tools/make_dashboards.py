"""Write Grafana's dashboards: `python tools/make_dashboards.py deploy/grafana/dashboards`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATASOURCE = {"type": "prometheus", "uid": "switchboard-prometheus"}
_COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: PromQL and legend of each series.
        unit: Grafana's name of a unit.
        kind: "timeseries" or "stat".
        width: Of 24 columns.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    description: str = ""


def _rate(metric: str, by: str, selector: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "", selector: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    rate = f"rate({metric}_bucket{selector}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate}))"


_BADNESS = " + ".join(
    f'max by (component) (switchboard_component_status{{status="{status}"}}) * {badness}'
    for status, badness in (("degraded", 1), ("unknown", 2), ("down", 3))
)
_NOT_CLOSED = 'max by (provider, phase) (switchboard_provider_breaker_state{phase!="closed"})'

DASHBOARDS: dict[str, tuple[str, Sequence[Panel]]] = {
    "switchboard-overview": (
        "Switchboard: overview",
        (
            Panel(
                "Components that are not well",
                [
                    (
                        'sum(max by (component) (switchboard_component_status{status!="ok"}))',
                        "not well",
                    )
                ],
                kind="stat",
                width=6,
            ),
            Panel(
                "Oldest unprocessed event",
                [("max(switchboard_consumer_oldest_event_age_seconds)", "age")],
                "s",
                "stat",
                6,
            ),
            Panel(
                "Oldest unsettled send",
                [("max(switchboard_outbox_oldest_age_seconds)", "age")],
                "s",
                "stat",
                6,
            ),
            Panel(
                "Dead letters", [("max(switchboard_dead_letters)", "events")], "short", "stat", 6
            ),
            Panel(
                "Status of components",
                [
                    (_BADNESS, "{{component}}"),
                ],
                width=12,
                description="0 ok, 1 degraded, 2 unknown, 3 down",
            ),
            Panel(
                "Webhooks by what became of them",
                [(_rate("switchboard_webhook_requests_total", "outcome"), "{{outcome}}")],
                "reqps",
                width=12,
                stacked=True,
            ),
            Panel(
                "Attempts to send",
                [
                    (
                        _rate("switchboard_send_attempts_total", "provider, outcome"),
                        "{{provider}} {{outcome}}",
                    )
                ],
                "ops",
                width=12,
                stacked=True,
            ),
            Panel(
                "Calls: steps answered, by whom",
                [(_rate("switchboard_call_answers_total", "source"), "{{source}}")],
                "ops",
                width=12,
                stacked=True,
            ),
        ),
    ),
    "switchboard-messages": (
        "Switchboard: messages",
        (
            Panel(
                "Time to answer a webhook, 99th percentile",
                [(_quantile(0.99, "switchboard_webhook_request_seconds", "route"), "{{route}}")],
                "s",
            ),
            Panel(
                "Events processed",
                [(_rate("switchboard_ingest_events_total", "outcome"), "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Events waiting, by consumer",
                [("max by (consumer) (switchboard_consumer_pending_events)", "{{consumer}}")],
            ),
            Panel(
                "Outbox",
                [("max by (state) (switchboard_outbox_messages)", "{{state}}")],
                stacked=True,
            ),
            Panel(
                "Time until a provider took a message",
                [
                    (_quantile(0.5, "switchboard_send_seconds", "provider"), "{{provider}} median"),
                    (_quantile(0.99, "switchboard_send_seconds", "provider"), "{{provider}} 99th"),
                ],
                "s",
            ),
            Panel(
                "Circuit breakers that are not closed",
                [
                    (_NOT_CLOSED, "{{provider}} {{phase}}"),
                ],
            ),
            Panel(
                "Conversations that wait for the assistant",
                [("max(switchboard_pending_replies)", "conversations")],
            ),
            Panel(
                "Lost webhooks made up for",
                [
                    (
                        "sum by (provider, kind) (switchboard_webhook_gaps_total)",
                        "{{provider}} {{kind}}",
                    )
                ],
            ),
            Panel(
                "API requests",
                [
                    (
                        _rate("switchboard_api_requests_total", "operation, status"),
                        "{{operation}} {{status}}",
                    )
                ],
                "reqps",
            ),
        ),
    ),
    "switchboard-calls": (
        "Switchboard: calls",
        (
            Panel(
                "Steps of calls, by what had happened",
                [(_rate("switchboard_call_answers_total", "after"), "{{after}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Time until the caller hears what follows, 95th percentile",
                [(_quantile(0.95, "switchboard_call_answer_seconds", "after"), "{{after}}")],
                "s",
            ),
            Panel(
                "Turns by what became of them",
                [(_rate("switchboard_call_turns_total", "outcome"), "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Stages of a turn, median",
                [(_quantile(0.5, "switchboard_call_stage_seconds", "stage"), "{{stage}}")],
                "s",
            ),
            Panel(
                "Stages of a turn, 95th percentile",
                [(_quantile(0.95, "switchboard_call_stage_seconds", "stage"), "{{stage}}")],
                "s",
            ),
            Panel(
                "Fillers and second choices",
                [
                    (_rate("switchboard_call_fallbacks_total", "fallback"), "{{fallback}}"),
                    ("sum(rate(switchboard_call_fillers_total[$__rate_interval]))", "fillers"),
                ],
                "ops",
            ),
            Panel(
                "Rendered speech: found or made",
                [(_rate("switchboard_speech_cache_lookups_total", "result"), "{{result}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Events of calls processed",
                [(_rate("switchboard_voice_events_total", "outcome"), "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Audio files by where they were",
                [(_rate("switchboard_audio_requests_total", "outcome"), "{{outcome}}")],
                "reqps",
                stacked=True,
            ),
        ),
    ),
    "switchboard-infrastructure": (
        "Switchboard: infrastructure",
        (
            Panel(
                "Services that answer", [('sum by (job) (up{job=~"switchboard-.+"})', "{{job}}")]
            ),
            Panel(
                "Event loop lag, 99th percentile",
                [(_quantile(0.99, "switchboard_event_loop_lag_seconds", "job"), "{{job}}")],
                "s",
            ),
            Panel(
                "Processor time",
                [(_rate("process_cpu_seconds_total", "job", '{job=~"switchboard-.+"}'), "{{job}}")],
                "percentunit",
            ),
            Panel(
                "Memory",
                [
                    (
                        'sum by (job) (process_resident_memory_bytes{job=~"switchboard-.+"})',
                        "{{job}}",
                    )
                ],
                "bytes",
            ),
            Panel(
                "Open files",
                [('sum by (job) (process_open_fds{job=~"switchboard-.+"})', "{{job}}")],
            ),
            Panel(
                "gRPC calls",
                [(_rate("switchboard_grpc_requests_total", "method, code"), "{{method}} {{code}}")],
                "reqps",
            ),
            Panel(
                "gRPC, 99th percentile",
                [(_quantile(0.99, "switchboard_grpc_request_seconds", "method"), "{{method}}")],
                "s",
            ),
            Panel(
                "Probes, 99th percentile",
                [(_quantile(0.99, "switchboard_probe_seconds", "component"), "{{component}}")],
                "s",
            ),
            Panel(
                "Spill",
                [
                    ("sum(switchboard_spill_events)", "events"),
                    ("sum(switchboard_spill_bytes)", "bytes"),
                ],
            ),
        ),
    ),
}


def dashboard(uid: str) -> dict[str, Any]:
    """A dashboard as Grafana provisions it."""
    title, panels = DASHBOARDS[uid]
    shown, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > _COLUMNS:
            x, y = 0, y + height
        shown.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x += panel.width
        if x == _COLUMNS:
            x, y = 0, y + height
    return {
        "uid": uid,
        "title": title,
        "tags": ["switchboard"],
        "schemaVersion": 41,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["switchboard"],
                "title": "Switchboard",
                "asDropdown": True,
            }
        ],
        "panels": shown,
    }


def _panel(number: int, panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


def text(uid: str) -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(uid), indent=2) + "\n"


if __name__ == "__main__":
    for uid in DASHBOARDS:
        Path(sys.argv[1], f"{uid}.json").write_text(text(uid))
