"""The migrations that this program has, by their files: to know them takes no Alembic."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"


def known_revisions() -> frozenset[str]:
    """Every migration that this program knows."""
    return frozenset(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*.py"))


def newest() -> str:
    """The newest of them: each has a higher number than the one before."""
    return max(known_revisions())
