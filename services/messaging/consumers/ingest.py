"""The consumer of what concerns messages, and of who their contacts are."""

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from services.common.tracing import Tracing
from services.messaging.consumers.decoding import Translator, decode
from services.messaging.consumers.durable import ConsumerOptions, Durable, JournalConsumer
from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import StatusReport

Content = InboundMessage | StatusReport | SamePerson

DURABLE = Durable("messaging", "ingest.whatsapp.>", patient=frozenset({"ingest.whatsapp.status"}))


class Handler(Protocol):
    """Stores a batch: `usecases.receive.Receive`."""

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> object: ...


async def _nobody(people: Sequence[SamePerson]) -> None:
    pass


class IngestConsumer(JournalConsumer[Content]):
    """Consumes messages and reports about them until cancelled.

    Args:
        client: May still be connecting.
        translators: By the name of the provider.
        join: Sees to it that names which are one person's are one contact's.
    """

    def __init__(
        self,
        client: Client,
        handle: Handler,
        translators: Mapping[str, Translator],
        *,
        join: Callable[[Sequence[SamePerson]], Awaitable[object]] = _nobody,
        registry: CollectorRegistry,
        options: ConsumerOptions | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        async def store(contents: Sequence[Content]) -> None:
            people = [one for one in contents if isinstance(one, SamePerson)]
            if people:
                await join(people)
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
            tracing=tracing,
        )
