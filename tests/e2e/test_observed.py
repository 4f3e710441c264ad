"""What the whole system lets operators see: health, metrics and traces of real messages."""

import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.collector import Collector, collecting
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promql import panel_queries, rules, selectors
from tests.support.stack import API_KEY, RunningStack, running_stack

CONTACT = "+972501234567"
# The vendor of the models says when it ends one, and the sandbox's doesn't.
_ONLY_IF_ANNOUNCED = "switchboard_model_shutdown_timestamp_seconds"
ANSWER = "Yes, it is."
QUESTION = "Is the flat in Haifa still free?"


PERSONAL = (CONTACT[1:], QUESTION, ANSWER, API_KEY)


class System(NamedTuple):
    """The system, and the collector of its traces."""

    stack: RunningStack
    collector: Collector

    def metrics(self, service: str) -> str:
        """What Prometheus reads from a service."""
        port = self.stack.metrics_ports[service]
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        return answer.raise_for_status().text

    def detailed(self) -> dict[str, dict[str, object]]:
        """Health's components."""
        url = f"{self.stack.addresses.health}/api/health/detailed"
        components: dict[str, dict[str, object]] = httpx.get(url, trust_env=False).json()[
            "components"
        ]
        return components


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system to which one message came and a call, and from which the API sent a message."""
    folder = tmp_path_factory.mktemp("observed")
    with (
        collecting() as collector,
        running_stack(folder, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as stack,
    ):
        written = stack.sandbox.post(
            f"/sandbox/contacts/{CONTACT}/messages", json={"body": QUESTION}
        )
        assert written.json()["webhook_status"] == 200
        system = System(stack, collector)
        collector.trace_with("webhook whatsapp_incoming", "send by twilio")
        sent = stack.api.post("/api/whatsapp/send", json={"to": CONTACT, "body": ANSWER})
        sent.raise_for_status()
        collector.trace_with("API request", "send by twilio")
        assert stack.call(QUESTION)["status"] == "completed"
        yield system


def test_one_trace_from_the_webhook_to_the_answer(system: System) -> None:
    """Through the journal, the store, the assistant and the outbox to the provider's call."""
    spans = system.collector.trace_with("webhook whatsapp_incoming", "send by twilio")
    named = {span.name: span for span in spans}
    assert named["webhook whatsapp_incoming"].service == "switchboard-webhook"
    assert named["send by twilio"].service == "switchboard-messaging"
    chain = ["webhook whatsapp_incoming", "answer", "send by twilio"]
    for parent, child in [*itertools.pairwise(chain), (chain[0], "store")]:
        assert named[child].parent == named[parent].id, (parent, child)


def test_one_trace_from_the_api_to_the_provider(system: System) -> None:
    """Through gRPC and the outbox."""
    spans = system.collector.trace_with("API request", "send by twilio")
    named = {span.name: span for span in spans}
    chain = ["API request", "SendMessage", "send by twilio"]
    for parent, child in itertools.pairwise(chain):
        assert named[child].parent == named[parent].id, (parent, child)


def test_health_has_seen_it_all(system: System) -> None:
    """Every component is well, and the messages are counted."""
    deadline = time.monotonic() + 120
    while True:
        components = system.detailed()
        periods = components["activity"]["details"]["periods"]  # type: ignore[index]  # JSON
        counted = periods[0]["messages_in"] == 1 and periods[0]["messages_out"] == 2
        if counted and {one["status"] for one in components.values()} == {"ok"}:
            break
        assert time.monotonic() < deadline, components
        time.sleep(0.5)


def test_metrics_tell_of_it_and_nothing_personal(system: System) -> None:
    """What happened is measured; no number, text, id or key is in any metric or span."""
    texts = {service: system.metrics(service) for service in system.stack.metrics_ports}
    assert re.search(
        r'webhook_requests_total\{outcome="journaled",route="whatsapp_incoming"\} 1.0',
        texts["webhook"],
    )
    assert 'send_attempts_total{outcome="accepted",provider="twilio"} 2.0' in texts["messaging"]
    assert 'grpc_request_seconds_count{method="SendMessage"} 1.0' in texts["messaging"]
    for text in texts.values():
        assert "switchboard_event_loop_lag_seconds_count" in text
        assert "process_resident_memory_bytes" in text
    everything = "".join(texts.values()).encode() + system.collector.raw
    for personal in PERSONAL:
        assert personal.encode() not in everything
    assert not re.search(rb"\b(SM|AC|CA)[0-9a-f]{32}\b", everything)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't on this machine")
@pytest.mark.parametrize("service", ["webhook", "messaging", "health"])
def test_promtool_reads_every_service(system: System, service: str) -> None:
    """Prometheus' own linter has nothing to say about what services really serve."""
    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input=system.metrics(service),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus isn't on this machine")
def test_no_panel_and_no_rule_is_empty(system: System, tmp_path: Path) -> None:
    """A real Prometheus answers every query of every panel and rule from the running system."""
    queries = {f"{panel}: {query}": query for panel, query in panel_queries()}
    for name in ("recording.yml", "alerts.yml"):
        for rule in rules(name):
            # An alert that is silent is empty, but not what it looks at.
            if "record" in rule:
                queries[rule["record"]] = rule["expr"]
            queries |= {one: one for one in selectors(rule["expr"]) if one != _ONLY_IF_ANNOUNCED}
    with running_prometheus(tmp_path, system.stack.metrics_ports) as prometheus:
        assert not until_answered(prometheus, {"up": "count(up == 1) == 3"})
        # Rates are of what happens while Prometheus looks.
        sent = system.stack.api.post("/api/whatsapp/send", json={"to": CONTACT, "body": "Hello"})
        sent.raise_for_status()
        system.stack.call(QUESTION)
        assert not until_answered(prometheus, queries)
        troubled = [rule["name"] for rule in prometheus.rules() if rule.get("lastError")]
        assert not troubled
        firing = {
            one["metric"]["alertname"] for one in prometheus.ask('ALERTS{alertstate="firing"}')
        }
        assert not firing


def until_answered(prometheus: Prometheus, queries: dict[str, str]) -> dict[str, str]:
    """Those queries that have no series even after a while."""
    deadline = time.monotonic() + 120
    while queries and time.monotonic() < deadline:
        queries = {name: query for name, query in queries.items() if not prometheus.ask(query)}
        time.sleep(0.5)
    return queries


def test_internal_ports_are_not_the_public_one(system: System) -> None:
    """The edge's public port knows neither metrics nor its own health."""
    for path in ("/metrics", "/internal/health"):
        answer = httpx.get(f"{system.stack.addresses.webhook}{path}", trust_env=False)
        assert answer.status_code == 404
