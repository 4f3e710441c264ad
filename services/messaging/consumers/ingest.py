"""The consumer of what concerns messages."""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from services.messaging.consumers.decoding import Translator, decode
from services.messaging.consumers.durable import ConsumerOptions, Durable, JournalConsumer
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport

DURABLE = Durable("messaging", "ingest.whatsapp.>")


class Handler(Protocol):
    """Stores a batch: `usecases.receive.Receive`."""

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> object: ...


class IngestConsumer(JournalConsumer[InboundMessage | StatusReport]):
    """Consumes messages and reports about them until cancelled.

    Args:
        client: May still be connecting.
        translators: By the name of the provider.
    """

    def __init__(
        self,
        client: Client,
        handle: Handler,
        translators: Mapping[str, Translator],
        *,
        registry: CollectorRegistry,
        options: ConsumerOptions | None = None,
    ) -> None:
        async def store(contents: Sequence[InboundMessage | StatusReport]) -> None:
            await handle(
                [one for one in contents if isinstance(one, InboundMessage)],
                [one for one in contents if isinstance(one, StatusReport)],
            )

        super().__init__(
            client,
            DURABLE,
            decode=functools.partial(decode, translators=translators),
            store=store,
            events_total=Counter(
                "switchboard_ingest_events_total",
                "Events of the journal by what became of them: stored, deferred or dead.",
                ["outcome"],
                registry=registry,
            ),
            options=options,
        )
