"""Kubernetes' manifests in `deploy/kustomize`: rendered, and compared with Kubernetes' schemas."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no types
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2] / "deploy" / "kustomize"
Manifest = dict[str, Any]


def renderer() -> Sequence[str] | None:
    """The command that renders a folder, if this machine has one."""
    if shutil.which("kustomize"):
        return ("kustomize", "build")
    return ("kubectl", "kustomize") if shutil.which("kubectl") else None


def rendered(folder: Path) -> list[Manifest]:
    """What a folder comes to."""
    command = renderer()
    assert command is not None
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def overlay(folder: Path, *, resources: Sequence[Path], components: Sequence[Path] = ()) -> Path:
    """An overlay of somebody's own, in `folder`."""
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "switchboard",
                "resources": [os.path.relpath(path, folder.resolve()) for path in resources],
                "components": [os.path.relpath(path, folder.resolve()) for path in components],
            }
        )
    )
    return folder


@functools.cache
def _schemas(version: str) -> tuple[Any, Registry[Any]]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    return folder, Resource.from_contents(definitions) @ Registry()


def problems(manifest: Manifest, version: str) -> list[str]:
    """What Kubernetes of a version wouldn't take, unknown fields included."""
    folder, definitions = _schemas(version)
    # As the schemas' files are named: networking.k8s.io/v1 is networking-v1.
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", manifest["apiVersion"])
    schema = json.loads((folder / f"{manifest['kind'].lower()}-{group}.json").read_text())
    registry = Resource.from_contents(schema) @ definitions
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod that a manifest makes, as `metadata` and `spec`."""
    pod: Manifest | None = manifest.get("spec", {}).get("template")
    return pod if manifest["kind"] in ("Deployment", "StatefulSet", "Job") else None


def containers(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Every pod with each of its containers."""
    for manifest in manifests:
        if pod := pod_of(manifest):
            for container in pod["spec"]["containers"]:
                yield pod, container


def environment(
    container: Manifest, manifests: Sequence[Manifest], secret: Mapping[str, str]
) -> dict[str, str]:
    """The variables that a container starts with.

    Raises:
        AssertionError: One refers to what isn't there, or comes later.
    """
    maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        name, origin = variable["name"], variable.get("valueFrom", {})
        if reference := origin.get("secretKeyRef"):
            assert reference["name"] == "switchboard"
            if not reference.get("optional") or reference["key"] in secret:
                found[name] = secret[reference["key"]]
        elif "fieldRef" in origin:
            found[name] = f"<{origin['fieldRef']['fieldPath']}>"
        else:
            # Kubernetes leaves `$(NAME)` as it is where NAME isn't known yet.
            text = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], str(variable["value"]))
            found[name] = text
    return found
