"""Hearing what other replicas say on core NATS, where nothing is kept."""

import asyncio
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


async def listen(client: Client, subject: str, heard: Callable[[bytes], None]) -> None:
    """Have `heard` called with what comes on a subject, from the first connection on.

    Returns once that is so; it then outlives reconnects.
    """

    async def on_message(message: Msg) -> None:
        heard(message.data)

    while True:
        if client.is_connected:
            try:
                await client.subscribe(subject, cb=on_message)
            except (nats.errors.Error, OSError) as error:
                log.warning("other replicas are not heard", subject=subject, error=repr(error))
            else:
                return
        await asyncio.sleep(_RETRY_SECONDS)
