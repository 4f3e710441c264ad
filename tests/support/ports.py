"""Ports for servers of the tests' own."""

import itertools
import os
import random
import socket

from cli.run_settings import RunSettings

# Below what a system gives to outgoing connections (32768 and up on Linux), so that no connection
# of another test takes a port between its choice and the server's start.
_FIRST, _WORKERS, _EACH = 12_000, 20, 1_000

_worker = os.environ.get("PYTEST_XDIST_WORKER", "gw").removeprefix("gw")
_slice = int(_worker) % _WORKERS if _worker else _WORKERS - 1
_start = random.randrange(_EACH)
_numbers = itertools.count(_start)


def free_port() -> int:
    """A port that nothing listens on at the moment, and no other worker of the tests takes."""
    for number in itertools.islice(_numbers, _EACH):
        port = _FIRST + _slice * _EACH + number % _EACH
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RuntimeError("no port is free")


def run_ports() -> dict[str, str]:
    """Variables that give each part of `switchboard run` a port of its own."""
    fields = (name for name in RunSettings.model_fields if name.endswith("_port"))
    return {name.upper(): str(free_port()) for name in fields}
