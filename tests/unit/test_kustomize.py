"""`deploy/kustomize`: Kubernetes takes it, the services understand it, nothing points nowhere."""

import os
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cli.catalogue import SERVICES
from services.common.settings import Settings
from tests.support.kustomize import (
    ROOT,
    Manifest,
    containers,
    environment,
    overlay,
    pod_of,
    problems,
    rendered,
    renderer,
)
from tests.support.nats import nats_binary

DEPLOYED_NATS = ROOT.parent / "nats"
OLDEST, NEWEST = "1.30", "1.37"
OVERLAYS = ("one-node", "three-nodes", "one-node with baileys")
IMAGES = {f"switchboard-{name}": name for name in (*SERVICES, "baileys")}
# What the README has people put into the Secret.
SECRET = {
    "GRPC_TOKEN": "a-long-random-string",
    "TWILIO_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
    "API_KEYS": "crm:a-long-random-string",
    "HEALTH_KEYS": "a-long-random-string",
    "OPENAI_API_KEY": "sk-example",
    "DATABASE_URL": "postgresql://switchboard:secret@postgres/switchboard",
    "POSTGRES_PASSWORD": "secret",
    "NATS_WEBHOOK_PASSWORD": "nwebhook",
    "NATS_MESSAGING_PASSWORD": "nmessaging",
    "NATS_HEALTH_PASSWORD": "nhealth",
    "NATS_ROUTE_PASSWORD": "nroute",
}
PROJECT = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]

needs_renderer = pytest.mark.skipif(
    renderer() is None, reason="neither kustomize nor kubectl is on this machine"
)


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Manifest]:
    """Each overlay, rendered."""
    name, _, component = request.param.partition(" with ")
    folder = ROOT / "overlays" / name
    if component:
        folder = overlay(
            tmp_path_factory.mktemp("overlay"),
            resources=[folder],
            components=[ROOT / "components" / component],
        )
    return rendered(folder)


def _files() -> Sequence[Path]:
    """Manifests that are whole as they stand: those that a kustomization names as resources."""
    found = []
    for kustomization in sorted(ROOT.rglob("kustomization.yaml")):
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            path = (kustomization.parent / name).resolve()
            assert path.exists()
            found += [path] if path.is_file() else []
    return found


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_kubernetes_takes_every_file(path: Path) -> None:
    """No field is unknown or of a wrong type, in the oldest Kubernetes that is supported."""
    for manifest in yaml.safe_load_all(path.read_text()):
        assert problems(manifest, OLDEST) == []


@needs_renderer
def test_kubernetes_takes_what_is_rendered(manifests: list[Manifest]) -> None:
    """Patched and merged it is right in the newest Kubernetes too, and every name is there once."""
    for manifest in manifests:
        assert problems(manifest, NEWEST) == []
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(set(names)) == len(names)


@needs_renderer
def test_the_services_understand_their_variables(manifests: list[Manifest]) -> None:
    """Each container's variables make a configuration that its service starts with, none of them
    is unknown, and no reference is left open."""
    known = {name.upper() for part in SERVICES.values() for name in part.model_fields}
    for _, container in containers(manifests):
        variables = environment(container, manifests, SECRET)
        assert not [value for value in variables.values() if "$(" in value]
        service = IMAGES.get(container["image"].partition(":")[0])
        if service not in SERVICES:
            continue
        passwords = {name for name in variables if re.fullmatch(r"NATS_\w+_PASSWORD", name)}
        assert not set(variables) - known - passwords
        settings = SERVICES[service].load(variables)
        _ports_are_open(settings, container)
        _addresses_are_there(settings, manifests)


def _ports_are_open(settings: Settings, container: Manifest) -> None:
    opened = {one["containerPort"] for one in container.get("ports", ())}
    if container["name"] == "migrate":
        assert not opened
        return
    listens = {
        int(str(getattr(settings, name)).rpartition(":")[2])
        for name in ("webhook_port", "health_port", "metrics_port", "messaging_grpc_bind")
        if hasattr(settings, name)
    }
    assert opened == listens


def _addresses_are_there(settings: Settings, manifests: Sequence[Manifest]) -> None:
    """Names of other services are those of Services, which have these ports."""
    services = {
        one["metadata"]["name"]: {port["port"] for port in one["spec"]["ports"]}
        for one in manifests
        if one["kind"] == "Service"
    }
    for name in ("nats_url", "messaging_grpc_address", "webhook_internal_url"):
        value = getattr(settings, name, None)
        if value is None or (name == "messaging_grpc_address" and "127.0.0.1" in value):
            continue
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        address = urlsplit(text if "://" in text else f"//{text}")
        assert address.hostname is not None
        assert address.port in services[address.hostname]


@needs_renderer
def test_nats_understands_its_variables(manifests: list[Manifest]) -> None:
    """It takes its file with the variables of its container, routes to the others included."""
    [container] = [one for _, one in containers(manifests) if one["name"] == "nats"]
    [config] = [Path(one) for one in container["args"] if one.endswith(".conf")]
    done = subprocess.run(
        [nats_binary(), "-t", "--config", str(DEPLOYED_NATS / config.name)],
        env=environment(container, manifests, SECRET),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [data] = [
        one["data"]
        for one in manifests
        if one["kind"] == "ConfigMap" and config.name in one["data"]
    ]
    assert data[config.name] == (DEPLOYED_NATS / config.name).read_text()


@needs_renderer
def test_ports_and_volumes_lead_somewhere(manifests: list[Manifest]) -> None:
    """Services and policies name ports that the pods they select open, probes one of their own
    container's, and every mount a volume."""
    pods = [pod for pod in map(pod_of, manifests) if pod]
    for manifest in manifests:
        if manifest["kind"] == "Service":
            opened = _open_ports(_selected(pods, manifest["spec"]["selector"]))
            assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= set(opened)
        if manifest["kind"] == "NetworkPolicy":
            selector = manifest["spec"]["podSelector"]
            opened = _open_ports([pod for pod in pods if _matches(pod, selector)])
            for rule in manifest["spec"].get("ingress", ()):
                assert {port["port"] for port in rule["ports"]} <= set(opened.values())
    claims = {
        one["metadata"]["name"] for one in manifests if "PersistentVolumeClaim" in one["kind"]
    }
    for manifest in manifests:
        if (pod := pod_of(manifest)) is None:
            continue
        volumes = pod["spec"].get("volumes", [])
        templates = manifest["spec"].get("volumeClaimTemplates", [])
        names = {one["name"] for one in volumes} | {one["metadata"]["name"] for one in templates}
        for volume in volumes:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
        for container in pod["spec"]["containers"]:
            assert {one["name"] for one in container.get("volumeMounts", ())} <= names
            opened = _open_ports([{"spec": {"containers": [container]}}])
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {})
                if "httpGet" in asked:
                    assert asked["httpGet"]["port"] in opened
                if "grpc" in asked:
                    assert asked["grpc"]["port"] in opened.values()


def _selected(pods: Sequence[Manifest], labels: Mapping[str, str]) -> list[Manifest]:
    found = [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]
    assert found, labels
    return found


def _matches(pod: Manifest, selector: Manifest) -> bool:
    labels = pod["metadata"]["labels"]
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def _open_ports(pods: Sequence[Manifest]) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }


@needs_renderer
def test_every_container_is_confined(manifests: list[Manifest]) -> None:
    """Nothing runs as root, writes to its image, has a token of Kubernetes or takes all memory."""
    for pod, container in containers(manifests):
        spec, own = pod["spec"], container["securityContext"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


@needs_renderer
def test_images_are_ours_or_pinned(manifests: list[Manifest]) -> None:
    """Ours have the version of this release, others one that doesn't move to another by itself."""
    for _, container in containers(manifests):
        name, _, tag = container["image"].partition(":")
        if name in IMAGES:
            assert tag == PROJECT["version"]
        else:
            assert re.fullmatch(r"[a-z]+:[0-9]+[\w.-]*", container["image"])


@needs_renderer
def test_a_database_has_one_owner_and_every_policy_is_needed(manifests: list[Manifest]) -> None:
    """Only messaging and the migration may reach the database."""
    pods = [pod for pod in map(pod_of, manifests) if pod]
    [policy] = [
        one
        for one in manifests
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "database"
    ]
    allowed = [pod for pod in pods if _matches(pod, policy["spec"]["podSelector"])]
    names = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in allowed}
    assert names == {"messaging", "migrate"}


@needs_renderer
def test_the_overlay_in_the_readme(tmp_path: Path) -> None:
    """Whoever copies it gets their own addresses and images."""
    [example] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    place = os.path.relpath(ROOT, tmp_path.resolve())
    text = textwrap.dedent(example).replace("switchboard/deploy/kustomize", place)
    (tmp_path / "kustomization.yaml").write_text(text)
    manifests = rendered(tmp_path)
    images = {container["image"].partition(":")[0] for _, container in containers(manifests)}
    assert images == {"nats", *(f"your.registry/switchboard-{name}" for name in SERVICES)}
    [ingress] = [one for one in manifests if one["kind"] == "Ingress"]
    assert ingress["spec"]["rules"][0]["host"] == "desk.example.com"
    [settings] = [
        one["data"]
        for one in manifests
        if one["kind"] == "ConfigMap" and "PUBLIC_HOST" in one["data"]
    ]
    assert settings["PUBLIC_HOST"] == "https://desk.example.com"
    assert settings["JETSTREAM_REPLICAS"] == "3"


def test_the_secret_in_the_readme_is_complete() -> None:
    """Whoever follows the README has every key that the manifests ask for."""
    text = (ROOT / "README.md").read_text()
    asked = {
        key
        for path in ROOT.rglob("*.yaml")
        for key in re.findall(r"secretKeyRef: \{ name: switchboard, key: (\w+)", path.read_text())
    }
    assert asked
    assert asked <= set(re.findall(r"--from-(?:literal|file)=(\w+)=", text))
