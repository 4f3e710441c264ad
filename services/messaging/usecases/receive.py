"""Taking in what the journal holds: messages, and reports about messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from services.messaging.domain.opt_out import OptOutWords, Wish
from services.messaging.ports.clock import Clock
from services.messaging.ports.receiving import (
    IngestResult,
    IngestStore,
    ReceivedMessage,
    ReplyRequest,
)


@dataclass(frozen=True, slots=True)
class ReplyPolicy:
    """When the assistant answers.

    Attributes:
        pause: Silence of the contact to wait for, so that a burst gets one answer.
        max_wait: However long the burst goes on, it is answered after this.
        max_age: A message that reaches us later than this is left to a person.
    """

    pause: timedelta
    max_wait: timedelta
    max_age: timedelta


class Receive:
    """Stores a batch and decides what should follow.

    Args:
        replies: None when there is no assistant: messages then wait for a person.
        on_stored: Called after messages were stored.
    """

    def __init__(
        self,
        store: IngestStore,
        words: OptOutWords,
        *,
        replies: ReplyPolicy | None,
        clock: Clock,
        on_stored: Callable[[], None],
    ) -> None:
        self._store = store
        self._words = words
        self._replies = replies
        self._clock = clock
        self._on_stored = on_stored

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> IngestResult:
        """Store a batch; events that are known already change nothing.

        Raises:
            UnavailableError: Nothing, or all of it, was stored: give the batch again.
            ValueError: A value of the batch can't be stored; nothing was.
        """
        now = self._clock()
        received = [self._received(message, now) for message in messages]
        result = await self._store.ingest(received, reports)
        if result.unsettled:
            await self._store.apply_parked(result.unsettled)
        if result.stored:
            self._on_stored()
        return result

    def _received(self, message: InboundMessage, now: datetime) -> ReceivedMessage:
        wish = None if message.from_us else self._words.wish(message.body)
        return ReceivedMessage(
            message=message,
            opted_out=None if wish is None else wish is Wish.OUT,
            # An opt-in word may be an answer like any other: "yes".
            reply=None if wish is Wish.OUT else self._reply(message, now),
        )

    def _reply(self, message: InboundMessage, now: datetime) -> ReplyRequest | None:
        policy = self._replies
        if policy is None or message.from_us or not message.body.strip():
            return None
        if now - message.received_at > policy.max_age:
            return None
        # An edge whose clock is ahead must not make its contacts wait.
        received_at = min(message.received_at, now)
        latest_at = received_at + max(policy.max_wait, policy.pause)
        return ReplyRequest(due_at=received_at + policy.pause, latest_at=latest_at)
