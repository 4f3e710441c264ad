"""Compile the contracts in protos/ into a folder: `python tools/compile_protos.py FOLDER`."""

import shutil
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parent.parent / "protos"


def compile_protos(target: Path) -> None:
    """Write messages, services and their types below `target`, replacing what was there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    protos = sorted(PROTOS.glob("switchboard/**/*.proto"))
    services = [path for path in protos if path.stem.endswith("_service")]
    _protoc("protoc-gen-mypy", "python", "mypy", target, protos)
    _protoc("protoc-gen-mypy_grpc", "grpc_python", "mypy_grpc", target, services)
    for folder in {path.parent for path in target.rglob("*.py")}:
        for package in [folder, *folder.parents]:
            if package == target:
                break
            (package / "__init__.py").touch()


def _protoc(plugin: str, code: str, types: str, target: Path, sources: list[Path]) -> None:
    subprocess.run(  # noqa: S603 - the arguments are this repository's own files
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTOS}",
            f"--plugin={plugin}={Path(sys.executable).parent / plugin}",
            f"--{code}_out={target}",
            f"--{types}_out=quiet:{target}",
            *map(str, sources),
        ],
        check=True,
    )


if __name__ == "__main__":
    compile_protos(Path(sys.argv[1]))
