"""The account's phone in the sandbox: it scans whatever code the bridge shows."""

from pathlib import Path

import httpx

from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.baileys.state import SessionState, State, parse_state


class PretendPhone:
    """Watches the bridge's `state.json`.

    Args:
        state: That file.
        control: Origin of the pretend WhatsApp's control interface.
    """

    def __init__(self, state: Path, control: str) -> None:
        self._path = state
        self._control = control
        self._scanned = ""

    def state(self) -> State | None:
        """What the bridge says of its session; None while it says nothing."""
        try:
            return parse_state(self._path.read_bytes())
        except (OSError, BadDocumentError):
            return None

    async def scan(self, state: State) -> None:
        """Scan the code if there is a new one.

        Raises:
            httpx.HTTPError: The pretend WhatsApp doesn't answer.
        """
        code = state.pairing.qr if state.pairing else None
        if state.state is not SessionState.PAIRING or not code or code == self._scanned:
            return
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            response = await client.post(f"{self._control}/scan", json={"qr": code})
        if response.is_success:
            self._scanned = code
