"""An edge to attack."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.edge import Edge, journal_client, running_edge
from tests.support.nats import NatsServer


@pytest.fixture
async def edge(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Edge]:
    """The whole edge on a socket, which journals what it accepts."""
    async with (
        journal_client(nats_server.url) as client,
        running_edge(
            client,
            tmp_path / "spill.db",
            failures_per_minute=1_000_000,
            read_seconds=1,
            shared_keys={"shared": "a-shared-secret"},
        ) as edge,
    ):
        yield edge
