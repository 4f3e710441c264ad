"""The status page: plain HTML, made from the report, with nothing fetched from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.health.facts import Fact, age, facts_about, span
from services.health.heard import Pairing

_FILES: Final = Path(__file__).parent / "static"

_WORDS: Final = {"ok": "OK", "degraded": "Degraded", "down": "Down", "unknown": "Unknown"}
_HEADLINES: Final = {
    "ok": "Everything works",
    "degraded": "It works, but something needs attention",
    "down": "Something essential doesn't work",
    "unknown": "Something essential can't be seen",
}
_TITLES: Final = {
    "webhook": "Webhook edge",
    "messaging": "Messaging",
    "database": "Database",
    "nats": "NATS JetStream",
    "processing": "Processing events",
    "sending": "Sending messages",
    "clocks": "Clocks",
    "assistant": "Assistant (messages)",
    "call_assistant": "Assistant (calls)",
    "transcription": "Transcription",
    "configuration": "Configuration",
    "activity": "Activity",
    "whatsapp_twilio": "Twilio",
    "whatsapp_baileys": "WhatsApp Web (Baileys)",
    "speech_google": "Speech (Google)",
    "speech_openai": "Speech (OpenAI)",
}
_GROUPS: Final[Sequence[tuple[str, str]]] = (
    ("Essential", "Without these nothing is taken in and worked on."),
    ("Work", "How far what was taken in has come."),
    ("WhatsApp", "Who sends and receives messages."),
    ("Speech and assistant", "As their last calls went; nothing is asked of them to find out."),
    ("Configuration", "What the services were told. No values are shown."),
)
_WORK: Final = frozenset({"processing", "sending", "clocks"})
_HIDDEN: Final = frozenset({"activity"})


class StatusPage:
    """Renders reports.

    Attributes:
        policy: The Content-Security-Policy that goes with the page.
    """

    def __init__(self) -> None:
        environment = Environment(
            loader=FileSystemLoader(_FILES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("status.html")
        # Both are files of ours, and the policy lets in nothing but exactly them.
        self._style = (_FILES / "status.css").read_text()
        self._script = (_FILES / "status.js").read_text()
        self.policy = (
            f"default-src 'none'; style-src {_hash(self._style)}; "
            f"script-src {_hash(self._script)}; "
            "connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def render(
        self, report: Mapping[str, Any], to_pair: Mapping[str, Pairing] | None = None
    ) -> str:
        """The page for a report (`Report.detailed`).

        Args:
            to_pair: What phones are to be paired with, by component; None for who may not see it.
        """
        components = report["components"]
        activity = components.get("activity", {"reason": "", "details": {}})
        now = datetime.fromisoformat(report["time"])
        return self._template.render(
            style=Markup(self._style),  # noqa: S704 - a file of ours
            script=Markup(self._script),  # noqa: S704 - a file of ours
            status=report["status"],
            word=_WORDS[report["status"]],
            headline=_HEADLINES[report["status"]],
            troubles=_troubles(components),
            version=report["version"],
            uptime=span(report["uptime_seconds"]),
            time=now.strftime("%H:%M:%S"),
            time_full=report["time"],
            groups=_grouped(components, now, to_pair),
            periods=[
                {**period, "name": _period(period["seconds"])}
                for period in activity["details"].get("periods", ())
            ],
            periods_unknown=activity["reason"] or "messaging has told nothing yet",
            chart=_chart(activity["details"].get("hours", ())),
            waiting=_waiting(components),
            variables=_variables(components),
        )


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _title(name: str) -> str:
    return _TITLES.get(name) or name.replace("_", " ").capitalize()


def _group(name: str, critical: bool) -> int:
    if critical:
        return 0
    if name in _WORK:
        return 1
    if name.startswith("whatsapp_"):
        return 2
    return 4 if name == "configuration" else 3


def _grouped(
    components: Mapping[str, Any], now: datetime, to_pair: Mapping[str, Pairing] | None
) -> list[dict[str, Any]]:
    rows: list[list[dict[str, Any]]] = [[] for _ in _GROUPS]
    for name, found in components.items():
        if name not in _HIDDEN:
            row = _row(name, found, now)
            if found["details"].get("needs_pairing"):
                row["pairing"] = "with a key" if to_pair is None else _pairing(to_pair.get(name))
            rows[_group(name, found["critical"])].append(row)
    return [
        {"title": title, "explanation": explanation, "rows": found}
        for (title, explanation), found in zip(_GROUPS, rows, strict=True)
        if found
    ]


def _row(name: str, found: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    since = datetime.fromisoformat(found["since"]) if found["since"] else None
    return {
        "title": _title(name),
        "status": found["status"],
        "word": _WORDS[found["status"]],
        "reason": _sentence(found["reason"]),
        "facts": facts_about(name, found["details"], now),
        "since": age(since, now) if since else "",
        "since_full": since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if since else "",
        "pairing": "",
        "age": "" if found["age_seconds"] is None else span(found["age_seconds"]),
    }


def _pairing(pairing: Pairing | None) -> dict[str, Any] | None:
    """What a phone needs; None while the bridge has nothing yet."""
    if pairing is None:
        return None
    drawn = pairing.qr and segno.make(pairing.qr, micro=False).svg_inline(
        border=4, dark="#000", light="#fff", omitsize=True, svgclass=None, lineclass=None
    )
    # Drawn here: of what the bridge said nothing but squares is left.
    return {"qr": Markup(drawn), "code": pairing.code}  # noqa: S704


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _troubles(components: Mapping[str, Any]) -> list[str]:
    """In a sentence each, the essential ones first, and in one all that nothing is known of."""
    troubled = [
        (not found["critical"], _title(name), found)
        for name, found in components.items()
        if found["status"] in ("degraded", "down")
    ]
    unknown = [
        _title(name)
        for name, found in components.items()
        if found["status"] == "unknown" and name not in _HIDDEN
    ]
    return [
        *(
            f"{title}: {found['reason'] or _WORDS[found['status']].lower()}"
            for _, title, found in sorted(troubled, key=lambda one: one[:2])
        ),
        *([f"Not known: {', '.join(unknown)}"] if unknown else []),
    ]


def _period(seconds: float) -> str:
    return {300: "5 minutes", 3600: "1 hour", 86400: "24 hours"}.get(int(seconds), span(seconds))


def _waiting(components: Mapping[str, Any]) -> list[Fact]:
    """What waits for something, from wherever it is known."""

    def detail(component: str, name: str) -> Any:
        return components.get(component, {}).get("details", {}).get(name)

    def count(component: str, name: str) -> str:
        found = detail(component, name)
        return "—" if found is None else f"{found:,}"

    def wait(component: str, name: str) -> str:
        found = detail(component, name)
        if found is None:
            return "—"
        return span(found) if found else "none"

    facts = [
        Fact("Oldest unsettled send", wait("sending", "oldest_unsettled_seconds")),
        Fact("Oldest unprocessed event", wait("processing", "oldest_unprocessed_seconds")),
        Fact("Events on the edge's disk", count("webhook", "spill_events")),
        Fact("Dead letters", count("processing", "dead_letters")),
    ]
    # WhatsApp Web has no list of messages that could be compared with ours.
    if "whatsapp_twilio" in components:
        never = detail("activity", "webhook_gaps") is not None and not detail(
            "activity", "webhook_gaps_looked_at"
        )
        gaps = "not compared yet" if never else count("activity", "webhook_gaps")
        facts.append(Fact("Webhook gaps made up for", gaps))
    return facts


def _chart(hours: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Bars of messages, an hour each; None when there was nothing."""
    most = max((hour["messages_in"] + hour["messages_out"] for hour in hours), default=0)
    if not most:
        return None
    height, width, gap = 96, 20, 4
    bars = []
    for number, hour in enumerate(hours):
        inbound = round(height * hour["messages_in"] / most, 1)
        outbound = round(height * hour["messages_out"] / most, 1)
        start = datetime.fromisoformat(hour["start"])
        bars.append(
            {
                "x": number * (width + gap),
                "in_y": round(height - inbound, 1),
                "in_height": inbound,
                "out_y": round(height - inbound - outbound, 1),
                "out_height": outbound,
                "label": start.strftime("%H"),
                "shows_label": number % 4 == 0,
                "words": f"{start:%H}:00 UTC: {hour['messages_in']} in, "
                f"{hour['messages_out']} out, {hour['calls']} calls",
            }
        )
    return {
        "bars": bars,
        "height": height,
        "bar": width,
        "most": most,
        "width": len(bars) * (width + gap) - gap,
    }


def _variables(components: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = components.get("configuration", {}).get("details", {}).get("variables", {})
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, variable in found.items():
        groups.setdefault(variable["group"], []).append({"name": name, **variable})
    return [
        {
            "name": name,
            "set": [one for one in variables if one["set"]],
            "default": [one for one in variables if not one["set"]],
        }
        for name, variables in sorted(groups.items(), key=lambda one: (one[0] != "core", one[0]))
    ]
