"""The stack as its users meet it: messages, calls, API, health, metrics, an upgrade."""

import base64
import json

import httpx
import pytest

from tests.support.compose import API_KEY, HEALTH_KEY, ComposeStack, until

PROFILES = ("sandbox", "edge", "monitoring")
pytestmark = pytest.mark.timeout(900)


def test_a_message_is_answered_and_read(stack: ComposeStack) -> None:
    """A contact writes, the assistant answers, and the answer is followed until it is read."""
    said = stack.run_in("sandbox", "switchboard", "say", "Is the flat in Haifa still free?")
    assert "assistant answers: Yes" in said
    assert said.rstrip().endswith("read")


def test_a_call_is_answered(stack: ComposeStack) -> None:
    """A caller is greeted, understood and answered, with speech that the edge serves."""
    said = stack.run_in("sandbox", "switchboard", "call", "Is the flat in Haifa still free?")
    assert "hears" in said
    assert "Yes, the flat in Haifa is still free." in said
    assert "outcome: answered" in said


def test_the_api_sends(stack: ComposeStack) -> None:
    """The REST API at the published port sends once for one key, and lists what it sent."""
    stack.run_in("sandbox", "switchboard", "say", "--from=+972501110001", "Hello")
    with httpx.Client(base_url=stack.webhook, headers={"X-API-Key": API_KEY}) as api:
        sent = [
            api.post(
                "/api/whatsapp/send",
                json={"to": "+972501110001", "body": "From the API"},
                headers={"Idempotency-Key": "compose-1"},
            )
            for _ in range(2)
        ]
        assert {answer.status_code for answer in sent} <= {200, 201, 202}
        assert len({answer.json()["id"] for answer in sent}) == 1
        listed = api.get("/api/whatsapp/conversation/+972501110001").json()
    bodies = [message["body"] for message in listed["messages"]]
    assert bodies.count("From the API") == 1


def test_health_is_told_to_those_who_may_know(stack: ComposeStack) -> None:
    """All components are well; details and the page want the key, through Caddy as well."""
    with httpx.Client(base_url=stack.edge) as outside:
        assert outside.get("/api/health/readiness").json()["ready"] is True
        assert outside.get("/api/health/liveness").status_code == 200
        assert outside.get("/api/health/detailed").status_code == 401
        assert outside.get("/").status_code == 401
        password = base64.b64encode(f"operator:{HEALTH_KEY}".encode()).decode()
        page = outside.get("/", headers={"Authorization": f"Basic {password}"})
        detailed = outside.get("/api/health/detailed", headers={"X-API-Key": HEALTH_KEY}).json()
    assert "<title>" in page.text
    components = detailed["components"]
    assert {name for name, one in components.items() if one["status"] == "down"} == set()
    assert {"webhook", "messaging", "database", "nats"} <= set(components)


def test_webhooks_pass_through_caddy(stack: ComposeStack) -> None:
    """What Caddy passes on reaches the edge, which refuses what isn't signed."""
    webhook = f"{stack.edge}/webhook/whatsapp/incoming"
    assert httpx.post(webhook, data={"MessageSid": "SM1"}).status_code == 400
    forged = httpx.post(webhook, data={"MessageSid": "SM1"}, headers={"X-Twilio-Signature": "x"})
    assert forged.status_code == 403


def test_prometheus_reads_every_service(stack: ComposeStack) -> None:
    """Every target is up, and the rules are loaded."""

    def asked(path: str) -> object:
        text = stack.run_in("prometheus", "wget", "-qO-", f"http://127.0.0.1:9090/api/v1/{path}")
        return json.loads(text)["data"]

    def jobs_up() -> set[str]:
        found = asked("query?query=up==1")
        assert isinstance(found, dict)
        return {one["metric"]["job"] for one in found["result"]}

    services = {f"switchboard-{name}" for name in ("webhook", "messaging", "health")}
    until(lambda: services <= jobs_up(), "Prometheus doesn't reach all services")
    assert asked("rules") != {"groups": []}


def test_only_the_edge_is_published(stack: ComposeStack) -> None:
    """Nothing but the edge and Caddy can be reached from outside, and the database not by them."""
    containers = stack.compose("ps", "--format=json").stdout
    published = {
        found["Service"]
        for found in map(json.loads, containers.splitlines())
        if any(port["PublishedPort"] for port in found["Publishers"] or [])
    }
    assert published == {"webhook", "caddy"}
    reach = "import socket; socket.create_connection(('postgres', 5432), 3)"
    ended = stack.compose("exec", "-T", "webhook", "python", "-c", reach, check=False)
    assert ended.returncode != 0


def test_containers_hold_to_the_least(stack: ComposeStack) -> None:
    """Services run as nobody in particular and can't write to their images."""
    for service in ("webhook", "messaging", "health"):
        assert stack.run_in(service, "id", "-u").strip() == "10001"
        ended = stack.compose("exec", "-T", service, "touch", "/opt/code/new", check=False)
        assert "Read-only file system" in ended.stdout
    shown = stack.compose("config", "--format=json").stdout
    assert "sandbox-auth-token" not in shown
    names = stack.run_in("webhook", "env")
    assert "OPENAI" not in names
    assert "DATABASE_URL" not in names


def test_an_upgrade_keeps_what_is_stored(stack: ComposeStack) -> None:
    """A database of the migration before is brought up to date, with all its messages."""
    stack.run_in("sandbox", "switchboard", "say", "--from=+972501110002", "Before the upgrade")
    before = stack.sql("SELECT count(*) FROM messages")
    newest = stack.sql("SELECT version_num FROM alembic_version")
    stack.compose("stop", "messaging")
    back = (
        "from alembic import command;"
        "from services.messaging.store.migrate import alembic_config;"
        "command.downgrade(alembic_config(open('/run/credentials/database_url').read()), '-1')"
    )
    stack.compose("run", "--rm", "--no-deps", "-T", "migrate", "python", "-c", back)
    assert stack.sql("SELECT version_num FROM alembic_version") != newest
    stack.compose("up", "--detach")
    stack.wait_until_healthy()
    assert stack.sql("SELECT version_num FROM alembic_version") == newest
    assert stack.sql("SELECT count(*) FROM messages") == before
    said = stack.run_in("sandbox", "switchboard", "say", "--from=+972501110002", "And after")
    assert said.rstrip().endswith("read")
