"""The consumer of what concerns calls."""

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from services.common.tracing import Tracing
from services.messaging.consumers.durable import ConsumerOptions, Durable, JournalConsumer
from services.messaging.consumers.voice_decoding import VoiceTranslator, decode_voice
from services.messaging.usecases.calls.take_in import VoiceEvent

DURABLE = Durable("voice", "ingest.voice.>")

# What a process had taken when it was killed comes again after its lease, and a caller waits.
# Each event is worth transactions of its own, and a batch of which one has to wait comes again.
_OPTIONS: Final = ConsumerOptions(batch_size=64, ack_wait_seconds=5.0)


def voice_consumer(
    client: Client,
    handle: Callable[[Sequence[VoiceEvent]], Awaitable[None]],
    translators: Mapping[str, VoiceTranslator],
    *,
    registry: CollectorRegistry,
    options: ConsumerOptions = _OPTIONS,
    tracing: Tracing | None = None,
) -> JournalConsumer[VoiceEvent]:
    """A consumer of events of calls.

    Args:
        client: May still be connecting.
        handle: Takes a batch in: `usecases.calls.take_in.TakeInCalls`.
        translators: By the name of the provider.
    """
    return JournalConsumer(
        client,
        DURABLE,
        decode=functools.partial(decode_voice, translators=translators),
        store=handle,
        events_total=Counter(
            "switchboard_voice_events_total",
            "Events of calls in the journal by what became of them: stored, deferred or dead.",
            ["outcome"],
            registry=registry,
        ),
        options=options,
        tracing=tracing,
    )
