"""`python -m services.messaging.migrate`: brings the database to the newest migration."""

import sys

from services.common.lifecycle import run_once
from services.messaging.settings import MessagingSettings
from services.messaging.store.migrate import upgrade


def migrate(settings: MessagingSettings) -> None:
    """Migrate the database that the settings name."""
    sys.stdout.write(f"The database is at {upgrade(settings.database_url.get_secret_value())}.\n")


if __name__ == "__main__":
    run_once("migrations", MessagingSettings, migrate)
