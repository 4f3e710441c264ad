"""What integration tests share beyond the servers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox.server import RunningSandbox
from tests.support.health import Around, open_around
from tests.support.journal import journal
from tests.support.nats import NatsServer
from tests.support.replaying import Setup
from tests.support.sending import open_database, open_sandbox


@pytest.fixture
def other_database_url(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Iterator[str]:
    """A second empty database of the same kind, without any tables yet."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/other.db"
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield url


@pytest.fixture
async def sandbox() -> AsyncIterator[RunningSandbox]:
    """A sandbox whose callbacks nobody takes."""
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def setup(nats_server: NatsServer, database_url: str, tmp_path: Path) -> AsyncIterator[Setup]:
    """A running journal and a migrated database."""
    async with journal(nats_server) as client, open_database(database_url) as database:
        yield Setup(nats_server, client, database, tmp_path)


@pytest.fixture
async def around(nats_server: NatsServer) -> AsyncIterator[Around]:
    """What health asks: an edge, a broker, and where messaging is to be."""
    async with open_around(nats_server) as around:
        yield around
