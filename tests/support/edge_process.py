"""`python -m services.webhook` as a process of a test's own."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import httpx

from tests.support.edge import FORM, INCOMING, message, signature
from tests.support.ports import free_port


class EdgeProcess:
    """One run of the service."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        internal = free_port()
        self.internal = f"http://127.0.0.1:{internal}"
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.webhook"],
                env={
                    "PATH": os.environ["PATH"],
                    "WEBHOOK_PORT": str(self.port),
                    "METRICS_PORT": str(internal),
                    **environment,
                },
                stderr=out,
            )

    def ready(self) -> None:
        deadline = time.monotonic() + 90
        while True:
            try:
                httpx.get(self.internal + "/internal/health").raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError(self.log.read_text()) from None
                time.sleep(0.05)

    def connected(self) -> None:
        """Wait until the journal is there."""
        deadline = time.monotonic() + 90
        while not self.health()["journal_connected"]:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def health(self) -> dict[str, object]:
        return dict(httpx.get(self.internal + "/internal/health", timeout=60).json())

    def post(self, sid: str, sign: bool = True) -> int:
        headers = {"content-type": FORM}
        if sign:
            headers["x-twilio-signature"] = signature(INCOMING, message(sid))
        body = urlencode(message(sid))
        return httpx.post(
            self.url + INCOMING, content=body, headers=headers, timeout=60
        ).status_code

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=90)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=90)

    def memory(self) -> int:
        """Bytes of resident memory (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kilobytes] = re.findall(r"VmRSS:\s+([0-9]+) kB", status)
        return int(kilobytes) * 1024

    def open_files(self) -> int:
        """Files and connections that are open (Linux)."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
