from alembic import command

from services.messaging.store.migrate import alembic_config, current, newest, upgrade


def test_migrations_build_the_models(empty_database_url: str) -> None:
    """Migrating an empty database gives exactly the tables of the models, on both databases."""
    assert current(empty_database_url) is None
    assert upgrade(empty_database_url) == newest()
    command.check(alembic_config(empty_database_url))
    assert current(empty_database_url) == newest()


def test_migrations_can_be_taken_back(empty_database_url: str) -> None:
    """Every migration can be undone, and done again."""
    upgrade(empty_database_url)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert current(empty_database_url) is None
    upgrade(empty_database_url)
