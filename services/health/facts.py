"""A component's details in a reader's words."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple


class Fact(NamedTuple):
    """A name and what it is."""

    name: str
    text: str


def facts_about(component: str, details: Mapping[str, Any], now: datetime) -> list[Fact]:
    """What is worth a look, whether or not something is wrong."""
    match component:
        case "webhook":
            found = _webhook(details)
        case "messaging":
            found = iter([Fact("Version", str(details.get("version", "—")))])
        case "database":
            found = _database(details)
        case "nats":
            found = _nats(details)
        case "processing":
            found = _processing(details)
        case "sending":
            found = _sending(details)
        case "clocks":
            found = _clocks(details)
        case "configuration":
            found = _configuration(details)
        case _:
            found = _vendor(details, now)
    return list(found)


def span(seconds: float) -> str:
    """How long, in at most two units."""
    if seconds < 1:
        return "a moment"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, _ = divmod(int(seconds), 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def age(at: datetime, now: datetime) -> str:
    """How long ago."""
    return span(max((now - at).total_seconds(), 0.0))


def size(count: float) -> str:
    """Bytes in a unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _latency(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds * 1000:.1f} ms"


def _webhook(details: Mapping[str, Any]) -> Iterator[Fact]:
    if "journal_connected" in details:
        yield Fact("Journal", "connected" if details["journal_connected"] else "away")
        events, stored = details.get("spill_events") or 0, details.get("spill_bytes") or 0
        yield Fact("Spill", f"{events:,} events, {size(stored)}" if events else "empty")


def _database(details: Mapping[str, Any]) -> Iterator[Fact]:
    if "kind" in details:
        yield Fact("Kind", {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[details["kind"]])
        yield Fact("Round trip", _latency(details["round_trip_seconds"]))
        yield Fact("Migration", str(details["migration"]))


def _nats(details: Mapping[str, Any]) -> Iterator[Fact]:
    if "round_trip_seconds" not in details:
        return
    yield Fact("Round trip", _latency(details["round_trip_seconds"]))
    most = details["storage_max_bytes"]
    limit = f" of {size(most)}" if most else ""
    yield Fact("Storage", size(details["storage_bytes"]) + limit)
    for name, stream in sorted(details["streams"].items()):
        # Object stores are streams too, but nobody counts their chunks.
        if not name.startswith(("OBJ_", "KV_")):
            limit = f" of {size(stream['max_bytes'])}" if stream["max_bytes"] else ""
            yield Fact(name, f"{stream['messages']:,} events, {size(stream['bytes'])}{limit}")


def _processing(details: Mapping[str, Any]) -> Iterator[Fact]:
    if "waiting" in details:
        yield Fact("Waiting", f"{details['waiting']:,}")
        yield Fact("Under way", f"{details['under_way']:,}")
        yield Fact("Dead letters", f"{details['dead_letters']:,}")


def _sending(details: Mapping[str, Any]) -> Iterator[Fact]:
    if "due" in details:
        yield Fact("Due", f"{details['due']:,}")
        yield Fact("Under way", f"{details['under_way']:,}")
        yield Fact("Being looked up", f"{details['unknown']:,}")
        yield Fact("Waiting for the assistant", f"{details['replies_waiting']:,}")


def _clocks(details: Mapping[str, Any]) -> Iterator[Fact]:
    for name, ahead in sorted(details.get("seconds_ahead", {}).items()):
        yield Fact(name.capitalize(), f"{ahead:+,.1f} s")


def _configuration(details: Mapping[str, Any]) -> Iterator[Fact]:
    variables = details.get("variables", {})
    chosen = sum(1 for variable in variables.values() if variable["set"])
    yield Fact("Variables set", f"{chosen} of {len(variables)}")
    yield Fact("APP_ENV", str(details.get("app_env", "—")))


def _vendor(details: Mapping[str, Any], now: datetime) -> Iterator[Fact]:
    if not details:
        return
    if details.get("restricted"):
        yield Fact("Restricted", "by the provider")
    if details.get("needs_pairing"):
        yield Fact("Needs pairing", "run `switchboard baileys pair`")
    if "breaker" in details:
        yield Fact("Breaker", str(details["breaker"]).replace("_", " "))
    if details.get("ack_latency_seconds") is not None:
        yield Fact("Acknowledges in", _latency(details["ack_latency_seconds"]))
    if details.get("state") != "untried":
        yield Fact("Last success", _ago(details.get("last_success_at"), now))
    if details.get("last_failure_at"):
        failed = _ago(details["last_failure_at"], now)
        code = details.get("last_error")
        yield Fact("Last failure", f"{failed} ({code})" if code else failed)


def _ago(moment: str | None, now: datetime) -> str:
    return f"{age(datetime.fromisoformat(moment), now)} ago" if moment else "none yet"
