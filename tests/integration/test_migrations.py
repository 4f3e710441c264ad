from alembic import command
from alembic.script import ScriptDirectory

from services.messaging.store.migrate import alembic_config, current, upgrade
from services.messaging.store.revisions import known_revisions, newest


def test_migrations_build_the_models(empty_database_url: str) -> None:
    """Migrating an empty database gives exactly the tables of the models, on both databases."""
    assert current(empty_database_url) is None
    assert upgrade(empty_database_url) == newest()
    command.check(alembic_config(empty_database_url))
    assert current(empty_database_url) == newest()


def test_the_files_name_the_migrations() -> None:
    """What this program knows without Alembic is what Alembic knows."""
    scripts = ScriptDirectory.from_config(alembic_config("sqlite://"))
    assert newest() == scripts.get_current_head()
    assert known_revisions() == {script.revision for script in scripts.walk_revisions()}


def test_migrations_can_be_taken_back(empty_database_url: str) -> None:
    """Every migration can be undone, and done again."""
    upgrade(empty_database_url)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert current(empty_database_url) is None
    upgrade(empty_database_url)
