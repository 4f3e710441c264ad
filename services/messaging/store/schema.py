"""All tables together. Both databases are migrated from them.

A transaction that locks rows of several tables locks contacts first, then conversations, pending
replies, outbox, messages, and within a table by ascending id: so two of them can't wait for each
other. Whoever takes pending replies that are due passes over those that are locked. Before all of
these, whoever finds a conversation by its contact holds the contact `FOR KEY SHARE`; whoever merges
contacts holds them `FOR UPDATE`, so nobody else adds to them.
"""

from typing import Final

from sqlalchemy import MetaData

from services.messaging.store import (  # noqa: F401 - Importing them adds their tables.
    call_models,
    contact_models,
    event_models,
    message_models,
    work_models,
)
from services.messaging.store.base import Base

SCHEMA: Final[MetaData] = Base.metadata
