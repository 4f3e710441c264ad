"""The provider of Baileys as messaging wires it, with times short enough for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from services.messaging.providers.baileys.client import BaileysProvider
from services.messaging.providers.baileys.files import OutgoingFiles
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.session import BridgeSession
from services.messaging.usecases.pace import RecipientPace
from services.messaging.usecases.policy import SendPolicy
from tests.support.bridge import ACCOUNT
from tests.support.sending import now, running

NO_PACE = RecipientPace(interval=timedelta())

WEB_RULES = SendPolicy(web_providers=frozenset({"baileys"}), pace=NO_PACE)
"""The real rules, but for the pace."""


@dataclass(frozen=True)
class Queue:
    """messaging's side of a queue."""

    folder: QueueFolder
    session: BridgeSession
    provider: BaileysProvider


@asynccontextmanager
async def baileys(
    root: Path, *, patience: float = 2, folder: QueueFolder | None = None
) -> AsyncIterator[Queue]:
    """A provider whose bridge may or may not be there.

    Args:
        patience: Seconds that the bridge may take for a message.
    """
    folder = folder or QueueFolder(root)
    folder.prepare()
    session = BridgeSession(
        folder,
        account=ACCOUNT,
        clock=now,
        patience=timedelta(seconds=patience),
        poll=timedelta(seconds=0.02),
    )
    await session.look()
    provider = BaileysProvider(
        folder,
        session,
        OutgoingFiles(local=True, timeout_seconds=2),
        account=ACCOUNT,
        clock=now,
        patience=timedelta(seconds=patience),
    )
    async with running(session.run()):
        yield Queue(folder, session, provider)
