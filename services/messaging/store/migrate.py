"""Bringing a database to the newest migration, and telling whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from services.messaging.store.database import database_url
from services.messaging.store.revisions import MIGRATIONS, known_revisions, newest


def alembic_config(url: str) -> Config:
    """Alembic's configuration for a `DATABASE_URL`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = database_url(url, asynchronous=False)
    return config


def upgrade(url: str) -> str:
    """Bring a database to the newest migration; returns its name."""
    parsed = database_url(url, asynchronous=False)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(alembic_config(url), "head")
    return newest()


def needs_upgrade(url: str) -> bool:
    """Whether a database lacks a migration of ours.

    One that a newer program has migrated further does not: migrations keep the program before
    them working.

    Raises:
        SQLAlchemyError: The database can't be reached.
    """
    revision = current(url)
    if revision is None:
        return True
    return revision in known_revisions() and revision != newest()


def current(url: str) -> str | None:
    """The migration a database is at; None when it is empty."""
    engine = create_engine(database_url(url, asynchronous=False), poolclass=NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()
