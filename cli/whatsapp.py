"""What `switchboard run` adds for Baileys: the bridge, and in the sandbox its WhatsApp."""

import re
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from cli.pretend_phone import PretendPhone
from cli.probes import http_answers
from cli.run_settings import RunSettings
from cli.supervisor import Part
from services.messaging.providers.baileys.state import SessionState

_HOST = "127.0.0.1"
_ROOT = Path(__file__).parent.parent
_BRIDGE = _ROOT / "services" / "baileys"
_SANDBOX = _ROOT / "sandbox" / "whatsapp"
_NODE = 20
# As the image has it: nothing here makes so much garbage that the 16 MB of Node's default help.
_NODE_OPTIONS = ["--max-semi-space-size=2"]


def missing_program() -> str | None:
    """What the bridge needs and this machine lacks, in a sentence, or None."""
    needs = f"The Baileys bridge needs Node.js {_NODE} or newer and npm"
    if not shutil.which("node") or not shutil.which("npm"):
        return (
            f"{needs}, which this machine doesn't have. Install them from your system's packages."
        )
    answer = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)  # noqa: S607 - the one on the path is the one that is started
    found = re.match(r"v(\d+)", answer.stdout)
    if not found or int(found[1]) < _NODE:
        return f"{needs}, and `node --version` says {answer.stdout.strip() or 'nothing'}."
    return None


def packages_installed() -> bool:
    """Whether the bridge has the packages that its lock names."""
    installed = _BRIDGE / "node_modules" / ".package-lock.json"
    lock = _BRIDGE / "package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime


class WhatsAppParts:
    """The bridge; in the sandbox also the WhatsApp server that it talks to, and the phone.

    Args:
        variables: With those of `baileys_folders`.
        sandbox: Whether the bridge talks to the pretend WhatsApp.
    """

    def __init__(
        self, variables: Mapping[str, str], settings: RunSettings, *, data: Path, sandbox: bool
    ) -> None:
        self._variables = dict(variables)
        self._settings = settings
        self._data = data / "baileys"
        self._sandbox = sandbox
        self._phone = PretendPhone(
            Path(self._variables["BAILEYS_QUEUE_DIR"]) / "state.json", self.control
        )
        if sandbox:
            port = settings.switchboard_whatsapp_port
            self._variables["BAILEYS_WEB_SOCKET_URL"] = f"ws://{_HOST}:{port}/ws/chat"

    @property
    def control(self) -> str:
        """Origin of the pretend WhatsApp's control interface."""
        return f"http://{_HOST}:{self._settings.switchboard_whatsapp_control_port}"

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Part, variable, host and number of every port that is needed."""
        if not self._sandbox:
            return []
        settings = self._settings
        own = "SWITCHBOARD_WHATSAPP_PORT"
        control = "SWITCHBOARD_WHATSAPP_CONTROL_PORT"
        return [
            ("the pretend WhatsApp", own, _HOST, settings.switchboard_whatsapp_port),
            ("the pretend WhatsApp", control, _HOST, settings.switchboard_whatsapp_control_port),
        ]

    def parts(self) -> list[Part]:
        """In the order of starting."""
        since = time.time()
        bridge = ["node", *_NODE_OPTIONS, str(_BRIDGE / "src" / "main.js")]
        if self._sandbox:
            bridge[1:1] = ["--import", str(_SANDBOX / "preload.js")]
        found: list[Part] = []
        if not packages_installed():
            install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            command = [*install, "--prefix", str(_BRIDGE)]
            found.append(Part("the bridge's packages", command, self._variables, None))
        if self._sandbox:
            found.append(self._server())
        found.append(Part("bridge", bridge, self._variables, partial(self._bridge_ready, since)))
        return found

    def _server(self) -> Part:
        settings = self._settings
        command = [
            *("node", str(_SANDBOX / "main.js")),
            *("--port", str(settings.switchboard_whatsapp_port)),
            *("--control-port", str(settings.switchboard_whatsapp_control_port)),
            *("--folder", str(self._data / "whatsapp")),
            *("--account", self._variables["BAILEYS_NUMBER"]),
        ]
        ready: Callable[[], Awaitable[bool]] = partial(http_answers, f"{self.control}/state")
        return Part("whatsapp", command, self._variables, ready)

    async def _bridge_ready(self, since: float) -> bool:
        """Whether the session is open; a real phone may take its time, a pretend one scans."""
        state = self._phone.state()
        if state is None or state.written_at.timestamp() < since:
            return False
        if state.state is SessionState.OPEN:
            return True
        if not self._sandbox:
            return state.state is not SessionState.CONNECTING
        await self._phone.scan(state)
        return False
