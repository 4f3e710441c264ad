"""`switchboard check` and where configuration comes from."""

import re
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


ROOT = Path(__file__).parent.parent.parent
BROUGHT = ("NATS_URL", "GRPC_TOKEN", "DATABASE_URL")


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
    last = next(line for line in report.splitlines() if line.startswith("ready to run services"))
    assert all(name in last for name in COMPLETE)
    assert "example: PUBLIC_HOST=https://" in report
    # As the edge says it, which is whom Twilio asks, though others want it as well.
    assert "one wrong letter refuses every webhook" in report
    assert "Without a .env `make run` starts the sandbox" in report


def test_a_complete_configuration_is_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the services would accept is reported as ready with exit code 0."""
    file = env_file(tmp_path, COMPLETE)
    assert check(file) == 0
    assert capsys.readouterr().out.endswith(
        "\nready for make run: yes\nready to run services by themselves: yes\n"
    )
    assert check(file, services_alone=True) == 0
    assert capsys.readouterr().out.endswith("\nready: yes\n")


def test_what_make_run_brings_is_not_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who filled in all that is theirs may start `make run`; services by themselves need more."""
    own = {name: value for name, value in COMPLETE.items() if name not in BROUGHT}
    file = env_file(tmp_path, own)
    assert check(file) == 0
    report = capsys.readouterr().out
    assert all(re.search(rf"{name} +brought by make run", report) for name in BROUGHT)
    assert "missing" not in report
    assert "ready for make run: yes\n" in report
    assert f"ready to run services by themselves: no ({', '.join(BROUGHT)})\n" in report
    assert check(file, services_alone=True) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    assert all(re.search(rf"{name} +missing", report) for name in BROUGHT)
    assert report.endswith(f"\nready: no ({', '.join(BROUGHT)})\n")


def test_what_make_run_decides_cannot_be_wrong_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verdict names what stands in its own way, and only that."""
    file = env_file(tmp_path, {**COMPLETE, "WEBHOOK_PORT": "x", "SWITCHBOARD_HTTP_PORT": "y"})
    assert check(file) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    assert "ready for make run: no (SWITCHBOARD_HTTP_PORT)\n" in report
    assert "ready to run services by themselves: no (WEBHOOK_PORT)\n" in report


def test_a_secret_that_cannot_be_read_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make run` doesn't bring an empty database to who has another one."""
    file = env_file(tmp_path, {**COMPLETE, "DATABASE_URL": "", "DATABASE_URL_FILE": "nowhere"})
    assert check(file) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    assert "ready for make run: no (DATABASE_URL)\n" in report
    assert "DATABASE_URL_FILE names nowhere" in report


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_HOST", "hidden.example.com"),
        ("TWILIO_ACCOUNT_SID", "hidden"),
        ("DATABASE_URL", "hidden://"),
        ("RECIPIENT_BURST_MESSAGES", "hidden"),
    ],
)
def test_a_malformed_variable_is_named_and_no_value_shown(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report can be pasted anywhere: it holds no value, right or wrong."""
    assert check(env_file(tmp_path, {**COMPLETE, name: value})) == EXIT_CONFIGURATION
    report = capsys.readouterr().out
    assert f"ready for make run: no ({name})" in report
    assert "malformed" in report
    assert "hidden" not in report


def test_the_signature_bypass_is_refused_in_production(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shortcut for development can't slip into a deployment."""
    variables = {**COMPLETE, "BYPASS_TWILIO_SIGNATURE": "true"}
    assert check(env_file(tmp_path, variables)) == EXIT_CONFIGURATION
    assert "ready for make run: no (BYPASS_TWILIO_SIGNATURE)" in capsys.readouterr().out


def test_a_variable_that_no_part_reads_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped name doesn't pass for a setting."""
    assert check(env_file(tmp_path, {**COMPLETE, "PUBLIC_HOTS": "hidden"})) == 0
    assert "no part reads it: PUBLIC_HOTS\n" in capsys.readouterr().out


def test_what_the_bridge_and_compose_read_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that something else takes from .env isn't called mistyped."""
    bridge = (ROOT / "services/baileys/src/settings.js").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    names = re.findall(r"'(BAILEYS_\w+)'", bridge) + re.findall(r"\$\{(\w+)", compose)
    assert "SITE_ADDRESS" in names
    assert check(env_file(tmp_path, {**dict.fromkeys(names, ""), **COMPLETE})) == 0
    assert "no part reads it" not in capsys.readouterr().out


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
