"""`.env.example`, made from the settings classes so that nothing is left out."""

import json
from dataclasses import dataclass, field

from cli.catalogue import EVERYTHING, group_rank
from services.common.settings import field_group, is_secret

_HEAD = """\
# Every variable of Switchboard. Copy this file to .env and fill in what is required;
# `switchboard check` says what is still missing. Lines that begin with #NAME= show the
# default, or an example where there is none. With `make run`, DATABASE_URL, NATS_URL and
# GRPC_TOKEN may stay empty: it brings its own.
# Made by `switchboard env-example`.
"""


@dataclass
class _Entry:
    name: str
    group: str
    purpose: str
    shown: str
    read_by: list[str] = field(default_factory=list)
    required_by: list[str] = field(default_factory=list)
    required_where: str = ""
    secret: bool = False


def env_example() -> str:
    """The text of `.env.example`."""
    entries: dict[str, _Entry] = {}
    for part, settings in EVERYTHING.items():
        for name, info in settings.model_fields.items():
            example = str((info.examples or [""])[0])
            without = info.is_required() or str(info.default) in ("None", "")
            default = str(info.default).lower() if info.annotation is bool else str(info.default)
            shown = example if without else default
            entry = entries.setdefault(
                name,
                _Entry(name.upper(), field_group(settings, name), info.description or "", shown),
            )
            entry.read_by.append(part)
            entry.secret = entry.secret or is_secret(settings, name)
            if info.is_required():
                entry.required_by.append(part)
            if isinstance(info.json_schema_extra, dict):
                where = info.json_schema_extra.get("required_where", entry.required_where)
                entry.required_where = str(where)
    groups = sorted({entry.group for entry in entries.values()}, key=group_rank)
    sections = [_section(group, list(entries.values())) for group in groups]
    return "\n".join([_HEAD, *sections])


def _section(group: str, entries: list[_Entry]) -> str:
    lines = [f"## {group}", ""]
    for entry in sorted(
        entries, key=lambda entry: (not entry.required_by, not entry.required_where)
    ):
        if entry.group != group:
            continue
        lines.append(f"# {entry.purpose[0].upper()}{entry.purpose[1:]}.")
        if entry.secret:
            lines.append(f"# Or {entry.name}_FILE, a file that holds it.")
        if entry.required_by:
            others = [part for part in entry.read_by if part not in entry.required_by]
            read = f", read by {', '.join(others)}" if others else ""
            required = f"Required by {', '.join(entry.required_by)}{read}"
            lines.append(f"# {required}. Example: {entry.shown}")
            lines += [f"{entry.name}=", ""]
        elif entry.required_where:
            lines.append(f"# Required where {entry.required_where}. Example: {entry.shown}")
            lines += [f"{entry.name}=", ""]
        else:
            lines.append(f"# Read by {', '.join(entry.read_by)}.")
            lines += [f"#{entry.name}={_quoted(entry.shown)}", ""]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    if any(character in value for character in " #\"'$"):
        return f"'{value}'" if "'" not in value else json.dumps(value)
    return value
