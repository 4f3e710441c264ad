"""Where configuration comes from: the process environment, then a file of variables."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from dotenv.main import DotEnv

from cli.catalogue import EVERYTHING
from services.common.environment import process_environment
from services.common.settings import is_secret, read_secret_file

ENV_FILE = Path(".env")

_READ_ELSEWHERE = {
    "BAILEYS_MAX_SECONDS_BETWEEN_MESSAGES",
    "BAILEYS_MIN_SECONDS_BETWEEN_MESSAGES",
    "BAILEYS_PAIRING_PHONE",
    "BAILEYS_STATE_DIR",
    "BAILEYS_WEB_SOCKET_URL",
    "HTTPS_PUBLISH",
    "HTTP_PUBLISH",
    "SITE_ADDRESS",
    "WEBHOOK_PUBLISH",
}
"""By the bridge and by `docker-compose.yml`."""


@dataclass(frozen=True)
class Environment:
    """Variables, and the file that added to those of the process.

    Attributes:
        file: None when there was no file to read.
        names: The variables that stand in the file.
        sandbox: Whether the file is the sandbox's.
    """

    variables: Mapping[str, str]
    file: Path | None
    names: Sequence[str]
    sandbox: bool

    def unread(self) -> str | None:
        """Which variables stand in the file though nothing reads them, in a sentence, or None.

        They are mistyped, most of the time.
        """
        fields = {name.upper() for part in EVERYTHING.values() for name in part.model_fields}
        known = _READ_ELSEWHERE | fields | {f"{name}_FILE" for name in fields}
        unread = [name for name in self.names if name not in known]
        return f"In {self.file}, but no part reads it: {', '.join(unread)}" if unread else None


def load_environment(env_file: Path | None = None, *, sandbox_allowed: bool) -> Environment:
    """The process environment, completed by `env_file`, else `.env`, else the sandbox's file.

    A variable of the process wins over the file, also inside `${...}`. Secrets that stand in
    files of their own are read; where one can't be, its `_FILE` stays for the service to report.

    Raises:
        FileNotFoundError: `env_file` was named and isn't there.
    """
    if env_file and not env_file.is_file():
        raise FileNotFoundError(f"there is no file {env_file}")
    sandbox = False
    file = env_file or (ENV_FILE if ENV_FILE.is_file() else None)
    # A deployed image has no sandbox.
    if file is None and sandbox_allowed and find_spec("sandbox"):
        file, sandbox = sandbox_file(), True
    read = DotEnv(file, override=False).dict() if file else {}
    added = {name: value for name, value in read.items() if value is not None}
    variables = {**added, **process_environment()}
    return Environment(variables | _secrets_in_files(variables), file, list(read), sandbox)


def _secrets_in_files(variables: Mapping[str, str]) -> dict[str, str]:
    secrets = {
        field.upper()
        for settings in EVERYTHING.values()
        for field in settings.model_fields
        if is_secret(settings, field)
    }
    found: dict[str, str] = {}
    for name in sorted(secrets):
        if not variables.get(name):
            with contextlib.suppress(ValueError):
                found[name] = read_secret_file(name, variables) or ""
    return {name: value for name, value in found.items() if value}


def sandbox_file() -> Path:
    """The variables that go with the sandbox."""
    return Path(str(files("sandbox").joinpath("sandbox.env")))
