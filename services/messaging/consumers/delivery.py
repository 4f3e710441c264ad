"""What a consumer was given, and telling the server what became of it."""

from nats.aio.client import Client
from nats.aio.msg import Msg


class Delivery:
    """A message that JetStream has lent, as long as the connection lasts that it came over.

    What is told of it names only its place in the stream. A broker that comes back empty gives the
    places to other messages and would take "stored" for them, so after a reconnection nothing is
    told any more: if the message is still there, it comes again.
    """

    __slots__ = ("_client", "_connection", "message")

    def __init__(self, client: Client, message: Msg) -> None:
        self.message = message
        self._client = client
        self._connection = client.stats["reconnects"]

    @property
    def is_settled(self) -> bool:
        """Whether it was said what became of it."""
        return self.message.is_acked

    async def ack(self) -> None:
        """It is done.

        Raises:
            nats.errors.Error: It can't be said now, as with the others.
            OSError: Likewise.
        """
        if self._is_ours():
            await self.message.ack()

    async def nak(self, delay_seconds: float) -> None:
        """Give it back, to be delivered again after a while."""
        if self._is_ours():
            await self.message.nak(delay_seconds)

    async def term(self) -> None:
        """Never deliver it again."""
        if self._is_ours():
            await self.message.term()

    async def in_progress(self) -> None:
        """Lend it for longer."""
        if self._is_ours():
            await self.message.in_progress()

    def _is_ours(self) -> bool:
        return self._client.stats["reconnects"] == self._connection
