"""`python -m sandbox` starts from its settings alone, on this machine only, and stops in order."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from pydantic import ValidationError

import sandbox
from sandbox.settings import SandboxSettings
from tests.support.ports import free_port
from tests.support.sandbox import sandbox_settings

SANDBOX_ENV = Path(sandbox.__path__[0]) / "sandbox.env"


@pytest.fixture
def port() -> int:
    return free_port()


def environment(monkeypatch: pytest.MonkeyPatch, port: int) -> dict[str, str]:
    """The variables a runner would hand to the sandbox."""
    monkeypatch.setenv("SWITCHBOARD_HTTP_PORT", "18080")
    monkeypatch.setenv("SWITCHBOARD_SANDBOX_PORT", str(port))
    values = dotenv_values(SANDBOX_ENV)
    return os.environ | {name: value for name, value in values.items() if value is not None}


def test_sandbox_env(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The committed settings are complete, follow the ports, and are plainly not real."""
    for name, value in environment(monkeypatch, port).items():
        monkeypatch.setenv(name, value)

    settings = SandboxSettings()
    assert settings.account_sid == "AC" + "0" * 32
    assert settings.webhook_url == settings.signed_origin == "http://127.0.0.1:18080"
    assert settings.port == port
    assert os.environ["TWILIO_API_BASE_URL"] == f"http://127.0.0.1:{port}"
    assert os.environ["OPENAI_BASE_URL"] == f"http://127.0.0.1:{port}/openai/v1"
    assert os.environ["APP_ENV"] == "development"


def test_runs_and_stops(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """It answers on its port and ends cleanly with Ctrl-C."""
    env = environment(monkeypatch, port)
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox"], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert _health(port) == {"status": "ok", "messages": 0}
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors


def _health(port: int) -> object:
    for _ in range(600):
        try:
            return httpx.get(
                f"http://127.0.0.1:{port}/sandbox/health", timeout=60, trust_env=False
            ).json()
        except httpx.ConnectError:
            time.sleep(0.1)
    pytest.fail("the sandbox doesn't answer")


def test_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken is named, with the variable that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = _run(environment(monkeypatch, port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "SWITCHBOARD_SANDBOX_PORT" in ended.stderr


def test_settings_missing(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Everything that is missing or wrong is named at once, and no secret is shown."""
    env = environment(monkeypatch, port)
    del env["TWILIO_ACCOUNT_SID"]
    ended = _run(env | {"SANDBOX_HOST": "0.0.0.0", "TWILIO_WHATSAPP_NUMBER": "0501234567"})
    assert ended.returncode == 1
    for name in ("TWILIO_ACCOUNT_SID", "SANDBOX_HOST", "TWILIO_WHATSAPP_NUMBER", "sandbox.env"):
        assert name in ended.stderr
    assert env["TWILIO_AUTH_TOKEN"] not in ended.stderr
    assert "Traceback" not in ended.stderr


def _run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_loopback_only(host: str) -> None:
    """The sandbox can't be told to listen where others could reach it."""
    with pytest.raises(ValidationError, match="host"):
        sandbox_settings(host=host)


def test_among_containers_it_may_be_reached() -> None:
    """Whoever says so lets it listen where others of its network reach it."""
    assert not sandbox_settings(host="0.0.0.0", open=True).host.is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_is_fine(host: str) -> None:
    """Any loopback address will do."""
    assert sandbox_settings(host=host).host.is_loopback


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account_sid", "SK" + "0" * 32),
        ("auth_token", " , "),
        ("whatsapp_number", "whatsapp:14155238886"),
        ("public_host", "https://switchboard.example/path"),
        ("webhook_url", "127.0.0.1:8080"),
        ("openai_api_key", ""),
        ("port", 70000),
        ("read_after", -1),
    ],
)
def test_malformed_settings(field: str, value: object) -> None:
    """A malformed setting is refused by its name."""
    with pytest.raises(ValidationError, match=field):
        sandbox_settings(**{field: value})


def test_bare_number() -> None:
    """The number may come without its channel."""
    settings = sandbox_settings(whatsapp_number="+14155238886", auth_token="one, two")
    assert settings.whatsapp_number == "whatsapp:+14155238886"
    assert settings.auth_tokens == ("one", "two")
