"""`switchboard baileys pair` against the files that a bridge writes."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.baileys import pair
from cli.main import main

QR = "https://wa.me/settings/linked_devices#2@abc,def,ghi,jkl,1"


def put_state(folder: Path, state: str, *, age: float = 0, **more: Any) -> None:
    """Replace `state.json` as the bridge does."""
    at = (datetime.now(UTC) - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
    document = {
        "v": 1,
        "state": state,
        "since": at,
        "written_at": at,
        "reason": "as the test says",
        "pace": {"min_seconds": 0.6, "max_seconds": 1.8},
        "queues": {"outbox": 0, "inbox": 0, "undecryptable": 0},
        "versions": {"bridge": "0.1.0", "baileys": "7.0.0-rc14", "node": "20.20.2"},
        **more,
    }
    unfinished = folder / "state.json.tmp"
    unfinished.write_text(json.dumps(document))
    unfinished.rename(folder / "state.json")


def later(seconds: float) -> str:
    """A time from now, as the bridge writes it."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return at.isoformat().replace("+00:00", "Z")


def test_a_code_is_shown_until_the_phone_has_scanned_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The QR code is drawn once, and the end says which number it is."""
    put_state(tmp_path, "pairing", pairing={"qr": QR, "expires_at": later(60)})
    scan = threading.Timer(
        0.8, put_state, (tmp_path, "open"), {"account": "+14155238886", "last_frame_at": later(0)}
    )
    scan.start()
    assert pair(queue=tmp_path, timeout=30, env_file=None) == 0
    scan.join()
    shown = capsys.readouterr().out
    assert shown.count("Linked devices") == 1
    assert "█" in shown or "▀" in shown
    assert QR not in shown
    assert "+14155238886" in shown


def test_a_code_to_type_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With BAILEYS_PAIRING_PHONE there is nothing to scan."""
    put_state(tmp_path, "pairing", pairing={"code": "ABCD1234", "expires_at": later(60)})
    assert pair(queue=tmp_path, timeout=0, env_file=None) == 1
    shown = capsys.readouterr().out
    assert "ABCD1234" in shown
    assert "in time" in shown


@pytest.mark.parametrize(
    ("state", "age", "says"),
    [
        ("logged_out", 0.0, "logged out"),
        ("blocked", 0.0, "blocked"),
        ("open", 60.0, "isn't running"),
    ],
)
def test_what_stands_in_the_way_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str, age: float, says: str
) -> None:
    """No waiting where nothing will come."""
    put_state(tmp_path, state, age=age)
    assert pair(queue=tmp_path, timeout=30, env_file=None) == 1
    assert says in capsys.readouterr().out


def test_without_a_bridge_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing and an unreadable state are two sentences."""
    assert pair(queue=tmp_path, timeout=30, env_file=None) == 1
    assert "isn't running" in capsys.readouterr().out
    (tmp_path / "state.json").write_text("{")
    assert pair(queue=tmp_path, timeout=30, env_file=None) == 1
    assert "can't be read" in capsys.readouterr().out


def test_the_command_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`switchboard baileys pair --queue FOLDER`."""
    with pytest.raises(SystemExit) as end:
        main(["baileys", "pair", "--queue", str(tmp_path)])
    assert end.value.code == 1
    assert "isn't running" in capsys.readouterr().out


def test_without_a_folder_that_of_make_run_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`.env` has no BAILEYS_QUEUE_DIR where `make run` brings it."""
    monkeypatch.delenv("BAILEYS_QUEUE_DIR", raising=False)
    monkeypatch.setenv("SWITCHBOARD_DATA_DIR", str(tmp_path))
    folder = tmp_path / "baileys" / "queue"
    folder.mkdir(parents=True)
    put_state(folder, "open", account="+14155238886", last_frame_at=later(0))
    assert pair(queue=None, timeout=30, env_file=None) == 0
    assert "+14155238886" in capsys.readouterr().out
