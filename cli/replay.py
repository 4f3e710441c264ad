"""`switchboard replay`: the journal once more into messaging's database."""

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.journal import Installation, JournalError
from services.common.lifecycle import EXIT_CONFIGURATION
from services.common.settings import ConfigurationError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(rf"(?P<number>[0-9]{{1,6}})(?P<unit>[{''.join(_UNITS)}])")


def moment(text: str, now: datetime) -> datetime:
    """The time that an argument means: `2026-03-01`, `2026-03-01T12:00`, or `36h` ago.

    A time without an offset is this machine's.

    Raises:
        ValueError: It is neither.
    """
    try:
        if duration := _DURATION.fullmatch(text):
            return now - timedelta(**{_UNITS[duration["unit"]]: int(duration["number"])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a time such as 2026-03-01T12:00 nor a duration such as 90m, 36h"
            " or 7d"
        ) from None


def replay(
    *,
    since: datetime,
    until: datetime | None,
    kind: str | None,
    backup: bool,
    database_url: str | None,
    env_file: Path | None,
) -> int:
    """Become messaging's replay command, with its configuration; returns only when it can't.

    The database is `database_url`, else that of a running `switchboard run`, else `DATABASE_URL`.
    """
    try:
        installation = Installation(env_file)
    except (FileNotFoundError, ConfigurationError) as error:
        print(f"{error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except JournalError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    variables = {
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "warning",
        **installation.environment.variables,
    }
    variables["NATS_URL"] = installation.nats_url
    if running := installation.running:
        variables |= {"DATABASE_URL": running.database_url, "GRPC_TOKEN": running.grpc_token}
    if database_url:
        variables["DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "services.messaging.replay", "--since", since.isoformat()]
    if until:
        command += ["--until", until.isoformat()]
    if kind:
        command += ["--kind", kind]
    if backup:
        command.append("--backup")
    print(f"Replaying the journal at {installation.place}", file=sys.stderr, flush=True)
    # In our place, so that its signals, exit code and terminal are ours.
    return os.execve(command[0], command, variables)  # noqa: S606 - No shell is wanted.
