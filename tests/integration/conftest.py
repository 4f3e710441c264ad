"""What integration tests share beyond the servers."""

from collections.abc import AsyncIterator

import pytest

from services.messaging.store.database import Database
from tests.support.sending import open_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database of each kind."""
    async with open_database(database_url) as database:
        yield database
