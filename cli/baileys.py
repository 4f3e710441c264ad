"""`switchboard baileys pair`: show what to scan until the phone has linked the bridge."""

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import segno

from cli.data_folder import DataFolder
from cli.environment import load_environment
from cli.run_settings import RunSettings
from cli.run_variables import baileys_folders
from services.common.settings import ConfigurationError
from services.messaging.providers.baileys.disk import VARIABLE
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.baileys.session import STALE
from services.messaging.providers.baileys.state import SessionState, State, parse_state

_POLL_SECONDS = 0.5

_WHERE = "On the phone: WhatsApp, Settings, Linked devices, Link a device."


class PairingError(Exception):
    """There is nothing to pair; the text says why."""


def pair(*, queue: Path | None, timeout: float, env_file: Path | None) -> int:
    """Print each code until the session is open; returns the exit code.

    Args:
        queue: The queue's folder; by default what BAILEYS_QUEUE_DIR says, else that of `make run`.
        timeout: Seconds to wait for the phone.
    """
    try:
        folder = queue or _configured(env_file)
        _follow(folder / "state.json", timeout, lambda: datetime.now(UTC))
    except (FileNotFoundError, ConfigurationError, PairingError) as error:
        print(f"{error}".rstrip(".") + ".")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _configured(env_file: Path | None) -> Path:
    """The queue's folder, or the one that `make run` brings."""
    variables = load_environment(env_file, sandbox_allowed=True).variables
    if folder := variables.get(VARIABLE):
        return Path(folder)
    data = DataFolder(RunSettings.load(variables).switchboard_data_dir)
    return Path(baileys_folders(data.path)[VARIABLE])


def _follow(path: Path, seconds: float, now: Callable[[], datetime]) -> None:
    end = time.monotonic() + seconds
    shown = None
    while True:
        state = _read(path)
        if now() - state.written_at > STALE:
            raise PairingError(f"The bridge isn't running: {path} is old")
        if state.state is SessionState.OPEN:
            print(f"Paired: the session is {state.account}.")
            return
        if state.state in (SessionState.LOGGED_OUT, SessionState.BLOCKED):
            raise PairingError(f"The session is {state.state.replace('_', ' ')}: {state.reason}")
        secret = state.pairing and (state.pairing.qr or state.pairing.code)
        if state.pairing and secret and secret != shown:
            _show(state.pairing.qr, state.pairing.code)
            shown = secret
        elif shown is None and state.state is SessionState.CONNECTING:
            print(f"Connecting to WhatsApp: {state.reason}.", flush=True)
            shown = ""
        if time.monotonic() > end:
            raise PairingError("Nothing was paired in time; run this again")
        time.sleep(_POLL_SECONDS)


def _read(path: Path) -> State:
    try:
        return parse_state(path.read_bytes())
    except FileNotFoundError:
        raise PairingError(f"The bridge isn't running: there is no {path}") from None
    except BadDocumentError as error:
        raise PairingError(f"{path} can't be read: {error}") from error


def _show(qr: str | None, code: str | None) -> None:
    print(_WHERE)
    if qr:
        drawn = io.StringIO()
        segno.make(qr, micro=False).terminal(drawn, compact=True, border=2)
        print(drawn.getvalue())
    else:
        print(f"Choose to link with the phone number, and type: {code}")
    print("Waiting for the phone. Ctrl-C gives up.", flush=True)
