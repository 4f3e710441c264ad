"""A real NATS server of a test's own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.ports import free_port


class NatsServer:
    """`nats-server` with JetStream that fsyncs every write, its data in `folder`.

    The port stays the same over restarts, so clients find it again.

    Args:
        config: A file to use instead of one that only switches JetStream on. It may say other
            addresses.
        environ: Variables that the file reads.
        arguments: More of the command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._config = config
        self._environ = environ or {}
        self._arguments = arguments
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._config or self._plain_config()
        command = [
            nats_binary(), "--config", str(config), "--addr", "127.0.0.1", "--port", str(self.port),
            *self._arguments,
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **self._environ}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
            ):
                if connection.recv(4) == b"INFO":
                    return
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in order; does nothing when it isn't running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End without a chance to tidy up."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start again with the same data and port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze: connections stay open, nothing answers."""
        server = self._running()
        server.send_signal(signal.SIGSTOP)
        # Until all of its threads have stopped, some still answer.
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Thaw after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Forget all data; only while stopped."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def _plain_config(self) -> Path:
        config = self._folder / "nats.conf"
        config.write_text(
            f'jetstream {{ store_dir: "{self._folder / "data"}", sync_interval: always }}\n'
        )
        return config

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("the server isn't running")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        # A frozen process takes a signal only once it is thawed.
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=60)
        self._process = None


def nats_binary() -> str:
    """The program `nats-server`."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server is missing; install the development requirements")
    return found
