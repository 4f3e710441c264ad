"""Asking a connection whether it still works, when it has been idle for long enough to doubt it."""

import time
from typing import Final

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_IDLE_SECONDS: Final = 1.0
"""A server that restarts takes about as long. SQLAlchemy's own check asks before each transaction,
which is a tenth of all questions when messages come one by one."""

_USED_AT: Final = "used_at"


def check_idle_connections(engine: Engine) -> None:
    """Replace connections of the pool that broke while nobody used them."""

    @event.listens_for(engine, "checkin")
    def on_checkin(connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def on_checkout(
        connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        # A new connection has none.
        used_at = entry.info.get(_USED_AT)
        if used_at is None or time.monotonic() - used_at < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # Those that are idle too broke with it, most likely.
            raise InvalidatePoolError from error
