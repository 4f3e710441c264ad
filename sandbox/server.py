"""Serving the sandbox: from the command line, or inside a test over a real socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import uvicorn

from sandbox.app import Sandbox
from sandbox.callbacks import webhook_client
from sandbox.connection import BreakableProtocol
from sandbox.faults import Faults
from sandbox.phone.call import PhoneCall
from sandbox.phone.scenario import Scenario
from sandbox.settings import SandboxSettings
from sandbox.state import SandboxState
from sandbox.vendors import Latencies

_GRACE = 2  # Seconds for requests under way when the sandbox stops.


@dataclass(frozen=True)
class RunningSandbox:
    """A sandbox that answers at `base_url`."""

    base_url: str
    state: SandboxState
    _sandbox: Sandbox

    def set_faults(self, faults: Faults) -> None:
        """Set all switches; those not given are off."""
        self._sandbox.faults.now = faults

    def set_latencies(self, latencies: Latencies) -> None:
        """Set how long the vendors take; those not given answer at once."""
        self._sandbox.vendors.latencies = latencies

    @property
    def google_account(self) -> str:
        """The JSON of the service account that the pretend Google knows."""
        return self._sandbox.google_account.json

    def call(self, scenario: Scenario) -> PhoneCall:
        """Call our number; the call goes on by itself."""
        return self._sandbox.exchange.begin(scenario)

    def hang_up(self, call: PhoneCall) -> None:
        """The caller hangs up, now."""
        self._sandbox.exchange.end(call)

    @property
    def calls(self) -> list[PhoneCall]:
        """Every call, the oldest first."""
        return list(self._sandbox.exchange.calls.values())

    async def settled(self) -> None:
        """Wait until messages and calls have come to their end and callbacks were answered."""
        await self._sandbox.lives.settled()
        await self._sandbox.exchange.settled()


@asynccontextmanager
async def running_sandbox(settings: SandboxSettings) -> AsyncIterator[RunningSandbox]:
    """Serve a sandbox while the context lasts; with port 0, on a port that is free.

    Raises:
        OSError: The port is in use.
    """
    with bound_socket(settings) as listener:
        base_url = _base_url(listener)
        sandbox = _sandbox(settings, base_url)
        server = _EmbeddedServer(sandbox)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            # The socket listens already: whoever connects before the server runs is served then.
            yield RunningSandbox(base_url, sandbox.state, sandbox)
        finally:
            server.should_exit = True
            await serving


async def serve(settings: SandboxSettings, listener: socket.socket) -> None:
    """Serve a sandbox until a signal stops it."""
    base_url = settings.base_url or _base_url(listener)
    await _Server(_sandbox(settings, base_url)).serve(sockets=[listener])


def bound_socket(settings: SandboxSettings) -> socket.socket:
    """A listening socket at the loopback address and port of the settings.

    Raises:
        OSError: The port is in use.
    """
    family = socket.AF_INET if settings.host.version == 4 else socket.AF_INET6
    # Only of sockets that say so does asyncio know that they are TCP; others wait 40 ms with an
    # answer's body until its head is acknowledged.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(settings.host), settings.port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        super().__init__(
            uvicorn.Config(
                sandbox.app,
                http=BreakableProtocol,
                ws="none",
                # Paths hold phone numbers.
                access_log=False,
                log_config=None,
                # The protocol finds the connection only if nothing stands before the application.
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Release the requests that a fault holds, then stop."""
        self._sandbox.closing.set()
        await super().shutdown(sockets)


class _EmbeddedServer(_Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program around."""
        yield


def _sandbox(settings: SandboxSettings, base_url: str) -> Sandbox:
    state = SandboxState(lambda: datetime.now(UTC))
    return Sandbox(settings, state, webhook_client(), base_url)


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
