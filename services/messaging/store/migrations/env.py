"""Alembic's entry point: runs migrations on the URL that `store.migrate` hands over."""

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from services.messaging.store.schema import SCHEMA

# Any number, the same for every process that migrates this database.
_MIGRATION_LOCK = 7_349_112


def _run() -> None:
    engine = create_engine(context.config.attributes["url"], poolclass=NullPool)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        context.configure(connection=connection, target_metadata=SCHEMA, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


_run()
