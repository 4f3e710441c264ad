"""The tests that are written in JavaScript: of the bridge, and of the sandbox's WhatsApp."""

import subprocess
from pathlib import Path

import pytest

from cli.whatsapp import missing_program

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("services/baileys/test", "sandbox/whatsapp/test")
    for path in (ROOT / folder).glob("*.test.js")
)

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing_program() is not None, reason=missing_program() or ""),
]


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parts[1]}-{path.stem}")
def test_node(file: Path) -> None:
    """Every test of the file passes; `node --test FILE` shows the same."""
    ended = subprocess.run(
        ["node", "--test", str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
