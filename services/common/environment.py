"""The variables a process starts with."""

import os
from pathlib import Path

from dotenv import dotenv_values


def process_environment() -> dict[str, str]:
    """The process's variables, completed by the file that `ENV_FILE` names, if it is there.

    A stack can so hand variables to its parts while they run; the process's own win, unless
    they are empty.
    """
    path = os.environ.get("ENV_FILE")
    added = dotenv_values(path) if path and Path(path).is_file() else {}
    return {name: value for name, value in added.items() if value is not None} | {
        name: value for name, value in os.environ.items() if value or name not in added
    }
