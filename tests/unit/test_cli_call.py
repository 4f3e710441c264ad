"""`switchboard call` says in a sentence why there is no call."""

from pathlib import Path

import pytest

from cli.main import main


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What it prints; it must fail."""
    with pytest.raises(SystemExit) as ended:
        main(["call", *arguments])
    assert ended.value.code == 1
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWITCHBOARD_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_to_say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Without words there is an example of how it goes."""
    assert 'make call TEXT="' in called(capsys, text)


def test_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A recording that can't be read is named."""
    assert "nothing.wav can't be read" in called(capsys, "--wav", "nothing.wav")


def test_not_running(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stack the sentence says how to start one."""
    assert "start it with `make run`" in called(capsys, "Hello")


def test_no_env_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An env file that isn't there is a sentence, too."""
    assert "there is no file" in called(capsys, "Hello", "--env-file", str(tmp_path / "none"))
