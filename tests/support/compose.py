"""A stack of containers of its own, run by the `docker compose` of this machine."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

_ROOT = Path(__file__).parents[2]
API_KEY = "sandbox-api-key"
HEALTH_KEY = "sandbox-health-key"


def engine_answers() -> bool:
    """Whether this machine has a Docker engine and `docker compose`."""
    try:
        return all(
            subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
            for command in (["docker", "info"], ["docker", "compose", "version"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


class ComposeStack:
    """One project of `docker-compose.yml`, apart from any other on this machine.

    Args:
        name: Of the project.
        profiles: Those that are on.
        variables: Beside the ports.
    """

    def __init__(
        self, name: str, profiles: tuple[str, ...] = (), variables: Mapping[str, str] | None = None
    ) -> None:
        self._command = ["docker", "compose", "--ansi=never", "--progress=quiet", "-p", name]
        for profile in profiles:
            self._command += ["--profile", profile]
        port, self._http, https = free_port(), free_port(), free_port()
        self._variables = {
            "WEBHOOK_PUBLISH": f"127.0.0.1:{port}",
            "HTTP_PUBLISH": f"127.0.0.1:{self._http}",
            "HTTPS_PUBLISH": f"127.0.0.1:{https}",
            # Plain HTTP: no authority would certify this machine.
            "SITE_ADDRESS": ":80",
            **(variables or {}),
        }
        self._environ = {**os.environ, **self._variables}
        self.webhook = f"http://127.0.0.1:{port}"

    @property
    def edge(self) -> str:
        """Origin of Caddy."""
        return f"http://127.0.0.1:{self._http}"

    def compose(
        self, *arguments: str, seconds: float = 300, check: bool = True, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """One command of `docker compose`, with both its outputs in one text.

        Raises:
            AssertionError: It failed; the text has what it said.
        """
        ended = subprocess.run(
            [*self._command, *arguments],
            cwd=_ROOT,
            env=self._environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or ended.returncode == 0, f"{' '.join(arguments)}: {ended.stdout[-3000:]}"
        return ended

    def shell(self, command: str) -> str:
        """A command of `docker compose` as a shell takes it, run from any folder."""
        words = [*self._command, "--file", str(_ROOT / "docker-compose.yml")]
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        return f"{shlex.join(['env', *variables, *words])} {command}"

    def wait_until_healthy(self) -> None:
        """Wait for every container that is to run, also one that wasn't well a moment ago."""

        def is_well(container: dict[str, Any]) -> bool:
            done = container["State"] == "exited" and container["ExitCode"] == 0
            return bool(done or container["Health"] == "healthy")

        def all_well() -> bool:
            lines = self.compose("ps", "--all", "--format=json").stdout.splitlines()
            return all(is_well(json.loads(line)) for line in lines)

        until(all_well, "not every container is healthy", 180)

    def report(self, text: str) -> None:
        """Show what a test measured."""
        sys.stdout.write(f"\n{text}\n")

    def run_in(self, service: str, *command: str, seconds: float = 120) -> str:
        """What a command in a container of the stack prints."""
        return self.compose("exec", "-T", service, *command, seconds=seconds).stdout

    def sql(self, query: str) -> str:
        """What the database answers, without headings."""
        psql = ["psql", "-U", "switchboard", "-d", "switchboard", "-qAt", "-c", query]
        return self.run_in("postgres", *psql).strip()

    def ask(self, service: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON at an address that only the containers reach."""
        program = (
            "import sys, urllib.request as r;"
            f"q = r.Request({url!r}, headers={dict(headers or {})!r});"
            "sys.stdout.write(r.urlopen(q, timeout=10).read().decode())"
        )
        return json.loads(self.run_in(service, "python", "-c", program))


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something, looking every half second.

    Raises:
        AssertionError: It doesn't come.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:g} s: {what}"
        time.sleep(0.5)
