"""Secrets that stand in files, and variables that a file adds."""

from pathlib import Path

import pytest

from cli.check import check
from services.common.environment import process_environment
from services.common.settings import ConfigurationError
from services.health.settings import HealthSettings
from services.webhook.settings import WebhookSettings

GOOD = {"PUBLIC_HOST": "https://switchboard.example.com", "NATS_URL": "nats://127.0.0.1:4222"}


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """What a file holds counts as the variable, without the line's end."""
    file = tmp_path / "token"
    file.write_text("hidden-token\n")
    settings = WebhookSettings.load({**GOOD, "TWILIO_AUTH_TOKEN_FILE": str(file)})
    assert settings.auth_tokens() == ("hidden-token",)


def test_the_variable_goes_before_its_file(tmp_path: Path) -> None:
    """With both there, the variable itself counts."""
    file = tmp_path / "token"
    file.write_text("from-the-file")
    both = {**GOOD, "TWILIO_AUTH_TOKEN": "itself", "TWILIO_AUTH_TOKEN_FILE": str(file)}
    assert WebhookSettings.load(both).auth_tokens() == ("itself",)


def test_an_empty_file_counts_as_unset(tmp_path: Path) -> None:
    """A stack may name a file for every secret, and leave those empty that nobody uses."""
    file = tmp_path / "unset"
    file.write_text("\n")
    loaded = HealthSettings.load({**GOOD, "GRPC_TOKEN": "token", "HEALTH_KEYS_FILE": str(file)})
    assert loaded.keys() == ()
    with pytest.raises(ConfigurationError, match=r"GRPC_TOKEN: is not set"):
        HealthSettings.load({**GOOD, "GRPC_TOKEN_FILE": str(file)})


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file or directory"), (b"\xff\xfe", "which is not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    """The report names the variable, the file and what is wrong with it."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        HealthSettings.load({**GOOD, "GRPC_TOKEN_FILE": str(file)})
    (found,) = caught.value.problems
    assert found.variable == "GRPC_TOKEN"
    assert f"GRPC_TOKEN_FILE names {file}" in found.problem
    assert problem in found.problem


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    """A path in a variable that is no secret opens nothing."""
    file = tmp_path / "host"
    file.write_text("https://switchboard.example.com")
    with pytest.raises(ConfigurationError, match="PUBLIC_HOST: is not set"):
        WebhookSettings.load(
            {**GOOD, "TWILIO_AUTH_TOKEN": "x", "PUBLIC_HOST": "", "PUBLIC_HOST_FILE": str(file)}
        )


def test_the_check_reads_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`switchboard check` is as content with a file as the services, and knows its variable."""
    (tmp_path / "token").write_text("hidden-grpc")
    (tmp_path / ".env").write_text("GRPC_TOKEN_FILE=token\nTWILIO_AUTH_TOKEN_FILE=nowhere\n")
    monkeypatch.chdir(tmp_path)
    assert check(None) == 78
    report = capsys.readouterr().out
    (wrong,) = (line for line in report.splitlines() if line.startswith("ready to run services"))
    assert "GRPC_TOKEN" not in wrong
    assert "TWILIO_AUTH_TOKEN_FILE names nowhere: No such file or directory" in report
    assert "no part reads it" not in report
    assert "hidden" not in report


def test_a_file_of_variables_completes_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENV_FILE adds what the process doesn't have; without the file there is nothing to add."""
    file = tmp_path / "stack.env"
    monkeypatch.setenv("ENV_FILE", str(file))
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("PUBLIC_HOST", "")
    assert not process_environment()["PUBLIC_HOST"]
    file.write_text("PUBLIC_HOST=http://webhook:8080\nLOG_LEVEL=error\n")
    assert process_environment()["PUBLIC_HOST"] == "http://webhook:8080"
    assert process_environment()["LOG_LEVEL"] == "debug"
