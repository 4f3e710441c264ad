"""The wall clock of our services, ahead by what a file says. Python imports this at its start.

With this folder in PYTHONPATH, a process started as `python -m NAME` looks into the file NAME of
the folder CLOCKS each time it asks what time it is: seconds, or nothing while there is no file.
Clocks that only measure are left alone, as they are when somebody sets a machine's clock. So is
`time.time`, by which gRPC tells its own core, written in C, until when to wait.
"""

import datetime
import os
import sys
from pathlib import Path
from typing import Any

_FILE = Path(os.environ["CLOCKS"], sys.orig_argv[2] if len(sys.orig_argv) > 2 else "none")
_RealDatetime = datetime.datetime


def _ahead() -> float:
    try:
        return float(_FILE.read_text())
    except (OSError, ValueError):
        return 0.0


class _Meta(type):
    """What the real class made is an instance of this one, too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _RealDatetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _RealDatetime)


class _Datetime(_RealDatetime, metaclass=_Meta):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        # Of this class, by which drivers and type maps know what a time is.
        return super().now(tz) + datetime.timedelta(seconds=_ahead())


datetime.datetime = _Datetime  # type: ignore[misc]  # That is the point.
