"""Putting the parts of the Baileys bridge together; only `__main__` does so."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry

from services.common.journal.publisher import JournalPublisher
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderCondition
from services.messaging.providers.baileys.client import LAST_SECONDS, BaileysProvider
from services.messaging.providers.baileys.events import BaileysEvents
from services.messaging.providers.baileys.files import OutgoingFiles, ReceivedFiles
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.inbox import InboxReader
from services.messaging.providers.baileys.session import BridgeSession
from services.messaging.settings import MessagingSettings

_FILE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Baileys:
    """What messaging runs for the bridge.

    Attributes:
        send_timeout: How long one send may take.
        loops: Endless; each is to be run.
    """

    provider: BaileysProvider
    condition: Callable[[], ProviderCondition]
    files: ReceivedFiles
    send_timeout: timedelta
    loops: Sequence[Callable[[], Coroutine[Any, Any, None]]]


def wire_baileys(
    settings: MessagingSettings,
    *,
    publisher: JournalPublisher,
    streams_ready: asyncio.Event,
    local_files: bool,
    registry: CollectorRegistry,
    clock: Clock,
) -> Baileys | None:
    """The bridge's parts; None where it isn't used.

    Args:
        streams_ready: Set when the journal's streams are there.
        local_files: Files to be sent may be on this machine. For the sandbox.
    """
    if settings.baileys_queue_dir is None or BaileysProvider.name not in settings.providers():
        return None
    folder = QueueFolder(settings.baileys_queue_dir)
    patience = timedelta(seconds=settings.baileys_send_patience_seconds)
    session = BridgeSession(folder, account=settings.baileys_number, clock=clock, patience=patience)
    provider = BaileysProvider(
        folder,
        session,
        OutgoingFiles(
            local=local_files,
            timeout_seconds=_FILE_SECONDS,
            max_bytes=settings.baileys_media_max_bytes,
        ),
        account=settings.baileys_number,
        clock=clock,
        patience=patience,
    )
    inbox = InboxReader(folder, publisher, clock=clock, registry=registry)

    async def read() -> None:
        await streams_ready.wait()
        await inbox.run()

    return Baileys(
        provider=provider,
        condition=session.condition,
        files=ReceivedFiles(folder, max_bytes=settings.baileys_media_max_bytes),
        send_timeout=patience + timedelta(seconds=LAST_SECONDS + _FILE_SECONDS + 5),
        loops=(session.run, read),
    )


def baileys_events(settings: MessagingSettings) -> BaileysEvents:
    """Reads what the bridge brought into the journal, also long ago."""
    return BaileysEvents(account=settings.baileys_number, own_address=settings.own_address())
