"""What `docker-compose.yml` and the Dockerfiles promise, read from them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.catalogue import SERVICES
from services.common.settings import is_secret

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, Any] = FILE["services"]
# Set by the image, or the same in every container.
BY_THE_IMAGE = {
    "METRICS_HOST", "METRICS_PORT", "WEBHOOK_HOST", "WEBHOOK_PORT", "SPILL_PATH",
    "HEALTH_HOST", "HEALTH_PORT",
}  # fmt: skip
LONGEST_DRAIN_SECONDS = 20


@pytest.mark.parametrize("name", ["webhook", "health"])
def test_a_service_gets_its_own_variables_alone(name: str) -> None:
    """Every variable that a service reads reaches it, each secret as a file, and no other."""
    settings = SERVICES[name]
    own = {field.upper() for field in settings.model_fields} - BY_THE_IMAGE
    secrets = {field.upper() for field in settings.model_fields if is_secret(settings, field)}
    given = set(CONTAINERS[name]["environment"])
    assert given == own | {f"{secret}_FILE" for secret in secrets} | {"ENV_FILE"}


def test_messaging_gets_no_keys_of_others() -> None:
    """Messaging reads .env as a whole, but for the secrets that it has no use for."""
    environment = CONTAINERS["messaging"]["environment"]
    everybody = {
        field.upper()
        for settings in SERVICES.values()
        for field in settings.model_fields
        if is_secret(settings, field)
    }
    own = {name for name in everybody if name.lower() in SERVICES["messaging"].model_fields}
    assert {name for name in everybody if environment.get(name) == ""} == everybody - own
    assert {name for name in everybody if f"{name}_FILE" in environment} == own


def test_health_knows_how_much_nats_may_store() -> None:
    """As many bytes as its file says, where G is 1024 cubed (nats-server, conf/parse.go)."""
    given = CONTAINERS["health"]["environment"]["NATS_STORAGE_MAX_BYTES"]
    for name in ("nats.conf", "cluster.conf"):
        text = (ROOT / "deploy/nats" / name).read_text()
        gib = int(re.findall(r"max_file_store: (\d+)GB", text)[0])
        assert given == f"${{NATS_STORAGE_MAX_BYTES:-{gib * 1024**3}}}"
    health = (ROOT / "deploy/kustomize/base/health.yaml").read_text()
    assert f'value: "{gib * 1024**3}"' in health


def test_secrets_are_named_alike_everywhere() -> None:
    """A container's secret is the file that its variable names, and .env may name another."""
    for name, container in CONTAINERS.items():
        for secret in container.get("secrets", []):
            variable = f"{secret.upper()}_FILE"
            assert container["environment"][variable] == f"/run/secrets/{secret}", name
            assert FILE["secrets"][secret]["file"] == f"${{{variable}:-./deploy/compose/unset}}"
    assert (ROOT / "deploy/compose/unset").read_text() == ""


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_have_the_least(name: str) -> None:
    """Nothing is written to an image, no privilege is gained, logs and memory have an end."""
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert {"max-size", "max-file"} <= set(container["logging"]["options"])
    once = container["restart"] == "no"
    assert once or {"mem_limit", "pids_limit"} <= set(container)
    assert container.get("user") != "0:0" or container["network_mode"] == "none"


@pytest.mark.parametrize("name", CONTAINERS)
def test_images_are_ours_or_of_one_version(name: str) -> None:
    """No image moves by itself, and one of ours can be built."""
    image, _, tag = CONTAINERS[name]["image"].partition(":")
    if image.startswith("switchboard-"):
        builders = [one.get("build") for one in CONTAINERS.values() if one["image"] == image]
        (dockerfile,) = {build["dockerfile"] for build in builders if build}
        assert (ROOT / dockerfile).is_file()
    else:
        assert re.match(r"v?\d", tag)


def test_only_the_edge_is_published() -> None:
    """Beside Caddy, what has a port has it on this machine alone."""
    published = {name: one["ports"] for name, one in CONTAINERS.items() if "ports" in one}
    assert set(published) == {"webhook", "caddy", "grafana"}
    assert published["webhook"] == ["${WEBHOOK_PUBLISH:-127.0.0.1:8080}:8080"]
    assert published["grafana"] == ["127.0.0.1:3000:3000"]


def test_the_database_is_out_of_the_edges_reach() -> None:
    """Only messaging and the migration share a network with it."""
    near = {name for name, one in CONTAINERS.items() if "data" in one.get("networks", [])}
    assert near == {"postgres", "messaging", "migrate"}
    assert FILE["networks"]["data"]["internal"] is True
    assert FILE["networks"]["inside"]["internal"] is True


@pytest.mark.parametrize("name", ["webhook", "messaging", "health"])
def test_draining_is_waited_for(name: str) -> None:
    """Docker kills no service that is still finishing what it has begun."""
    grace = CONTAINERS[name]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > LONGEST_DRAIN_SECONDS


@pytest.mark.parametrize("path", sorted(ROOT.glob("services/*/Dockerfile")), ids=str)
def test_images_run_as_nobody(path: Path) -> None:
    """Each says who it runs as, how it is asked for its health, and installs by hash."""
    text = path.read_text()
    assert "\nUSER 10001:10001\n" in text
    assert "\nHEALTHCHECK " in text
    assert "--require-hashes" in text or "npm ci" in text
    assert re.search(r'\nCMD \["(python|node)", ', text)
