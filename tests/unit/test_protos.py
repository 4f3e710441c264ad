"""The committed stubs are those of the contracts."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_stubs_are_compiled_from_the_contracts(tmp_path: Path) -> None:
    """A changed contract must be followed by `make protos`."""
    subprocess.run([sys.executable, ROOT / "tools/compile_protos.py", tmp_path / "gen"], check=True)
    assert _files(ROOT / "protos/gen") == _files(tmp_path / "gen")


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*.py*")
        if "__pycache__" not in path.parts
    }
