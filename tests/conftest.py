"""Real servers for tests."""

import contextlib
import gc
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.messaging.store.database import Database
from tests.support.databases import PostgresServer, migrated
from tests.support.nats import NatsServer
from tests.support.sending import open_database

pytest_plugins = ["tests.support.attacks", "tests.support.order"]
_THRESHOLD = gc.get_threshold()


def pytest_runtest_teardown() -> None:
    """Let the collector see all again, as sockets that were left open are found by it.

    A service that was served in this process has kept it from what was there.
    """
    gc.unfreeze()
    gc.set_threshold(*_THRESHOLD)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/switchboard.db"
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "switchboard.db"
    migrated(f"sqlite:///{file}")
    # Once: two that open it at the same time would lock each other out over it.
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    return file


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite database, its tables empty, where that is all the test needs."""
    return f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'switchboard.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind, its tables empty."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.migrated_database()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database of each kind."""
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A running NATS server that belongs to the test alone."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.stop()
