"""The port from which Prometheus reads a service's metrics."""

import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from services.common import metrics
from services.common.metrics import serving_metrics
from tests.support.ports import free_port


def test_who_asks_nothing_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection has one, and a process has so many; others are answered meanwhile."""
    monkeypatch.setattr(metrics, "_SILENT_SECONDS", 0.5)
    registry, port = CollectorRegistry(), free_port()
    Counter("switchboard_things", "Things.", registry=registry)
    with (
        serving_metrics(port, registry, host="127.0.0.1"),
        socket.create_connection(("127.0.0.1", port), timeout=10) as silent,
    ):
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert "switchboard_things_total 0.0" in answer.text
        assert silent.recv(1) == b""
