"""`switchboard check` and where configuration comes from."""

from pathlib import Path

import pytest

from cli.catalogue import EVERYTHING
from cli.check import check
from cli.environment import load_environment, sandbox_file
from services.common.lifecycle import EXIT_CONFIGURATION

COMPLETE = {
    "PUBLIC_HOST": "https://switchboard.example.com",
    "TWILIO_ACCOUNT_SID": "AC0123456789abcdef0123456789abcdef",
    "TWILIO_AUTH_TOKEN": "hidden-token",
    "TWILIO_WHATSAPP_NUMBER": "+14155238886",
    "DATABASE_URL": "postgresql://switchboard:hidden-password@db/switchboard",
    "NATS_URL": "nats://hidden-nats@nats:4222",
    "GRPC_TOKEN": "hidden-grpc",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any of our variables, in an empty folder."""
    for settings in EVERYTHING.values():
        for name in settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def env_file(folder: Path, variables: dict[str, str]) -> Path:
    file = folder / "some.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return file


def test_everything_missing_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One look at an empty configuration tells all that has to be filled in."""
    assert check(None) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    last = next(line for line in report.splitlines() if line.startswith("ready: no"))
    assert all(name in last for name in COMPLETE)
    assert "example: PUBLIC_HOST=https://" in report


def test_a_complete_configuration_is_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the services would accept is reported as ready with exit code 0."""
    assert check(env_file(tmp_path, COMPLETE)) == 0
    assert capsys.readouterr().out.endswith("ready: yes\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_HOST", "hidden.example.com"),
        ("TWILIO_ACCOUNT_SID", "hidden"),
        ("DATABASE_URL", "hidden://"),
        ("WEBHOOK_PORT", "hidden"),
    ],
)
def test_a_malformed_variable_is_named_and_no_value_shown(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report can be pasted anywhere: it holds no value, right or wrong."""
    assert check(env_file(tmp_path, {**COMPLETE, name: value})) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    assert f"ready: no ({name})" in report
    assert "malformed" in report
    assert "hidden" not in report


def test_the_signature_bypass_is_refused_in_production(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shortcut for development can't slip into a deployment."""
    variables = {**COMPLETE, "BYPASS_TWILIO_SIGNATURE": "true"}
    assert check(env_file(tmp_path, variables)) == EXIT_CONFIGURATION
    assert "ready: no (BYPASS_TWILIO_SIGNATURE)" in capsys.readouterr().out


def test_a_variable_that_no_part_reads_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped name doesn't pass for a setting."""
    assert check(env_file(tmp_path, {**COMPLETE, "PUBLIC_HOTS": "hidden"})) == 0
    assert "no part reads it: PUBLIC_HOTS\n" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped file name isn't taken for an empty configuration."""
    assert check(tmp_path / "absent.env") == EXIT_CONFIGURATION
    assert "absent.env" in capsys.readouterr().out


def test_the_process_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the process counts, also where the file refers to it."""
    monkeypatch.setenv("SWITCHBOARD_HTTP_PORT", "9000")
    file = env_file(
        tmp_path,
        {"SWITCHBOARD_HTTP_PORT": "1", "PUBLIC_HOST": "http://localhost:${SWITCHBOARD_HTTP_PORT}"},
    )
    variables = load_environment(file, sandbox_allowed=False).variables
    assert variables["SWITCHBOARD_HTTP_PORT"] == "9000"
    assert variables["PUBLIC_HOST"] == "http://localhost:9000"


def test_the_sandbox_is_used_only_without_an_env_file(tmp_path: Path) -> None:
    """A real configuration is never mixed with the sandbox's."""
    assert load_environment(sandbox_allowed=True).file == sandbox_file()
    (tmp_path / ".env").write_text("PUBLIC_HOST=https://real.example.com\n")
    environment = load_environment(sandbox_allowed=True)
    assert not environment.sandbox
    assert "TWILIO_ACCOUNT_SID" not in environment.variables
