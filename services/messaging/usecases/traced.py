"""Sending as a part of the trace of what led to it."""

from collections.abc import Sequence
from datetime import datetime

from services.common.tracing import Tracing
from services.messaging.ports.sending import ClaimedSend, Provider, ProviderMessage, SendOutcome


class TracedProvider:
    """A `Provider` whose calls to send are spans."""

    def __init__(self, provider: Provider, tracing: Tracing) -> None:
        self.name = provider.name
        self.absorbs_repeats = provider.absorbs_repeats
        self._provider = provider
        self._tracing = tracing

    async def send(self, message: ClaimedSend) -> SendOutcome:
        """Try once."""
        span = f"send by {self.name}"
        with self._tracing.span(span, kind="client", parent=message.traceparent):
            return await self._provider.send(message)

    async def sent_messages(
        self, *, contact_address: str, own_address: str, since: datetime
    ) -> Sequence[ProviderMessage]:
        """Everything sent to one contact since a time, oldest first."""
        return await self._provider.sent_messages(
            contact_address=contact_address, own_address=own_address, since=since
        )
