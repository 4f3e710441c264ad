"""What answering needs from the store and from the assistant, and the values that cross."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from services.messaging.domain.contact import Identity
from services.messaging.domain.message import (
    Direction,
    Message,
)
from services.messaging.ports.sending import NewMessage


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation as the assistant sees it."""

    direction: Direction
    body: str


ANSWERS_COUNTED: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ReplyTask:
    """A conversation that waits for an answer.

    Attributes:
        up_to: Position of the newest inbound message the answer takes into account.
        up_to_message_id: Our id of that message.
        turns: The conversation so far, oldest first.
        attempt: Number of this attempt, from 1.
        lease_until: Afterwards another process may take the conversation over.
        too_many: The assistant was asked as often as may be in the last `ANSWERS_COUNTED`, and is
            not to be asked again.
        traceparent: The request that brought the newest message; "" where that isn't known.
    """

    conversation_id: int
    up_to: int
    up_to_message_id: str
    turns: tuple[Turn, ...]
    recipient: Identity
    contact_address: str
    own_address: str
    attempt: int
    lease_until: datetime
    too_many: bool = False
    traceparent: str = ""


class Assistant(Protocol):
    """Writes answers."""

    async def answer(self, turns: Sequence[Turn]) -> str:
        """The answer to the conversation so far; "" for none.

        Raises:
            UnavailableError: No answer now; asking again later may work.
            InvalidInputError: No answer to this conversation, ever.
        """
        ...


class ReplyStore(Protocol):
    """The table of conversations that wait for an answer."""

    async def claim_replies(
        self, *, limit: int, lease: timedelta, context: int, max_answers: int
    ) -> Sequence[ReplyTask]:
        """Take conversations whose time has come, each with its last `context` messages.

        Args:
            max_answers: Of a conversation's messages of the last `ANSWERS_COUNTED`, the assistant
                is asked about so many, whether its answers are sent or thrown away. Trying again
                after a failure counts no further.
        """
        ...

    async def answer(self, task: ReplyTask, message: NewMessage) -> Message | None:
        """Store the answer for sending and end the task, in one transaction.

        Returns None, and stores no message, when the contact has written again, the message was
        answered before, or a rule forbids the answer. Of two processes that answer the same
        message the first is believed, also after its lease.
        """
        ...

    async def give_back(self, task: ReplyTask, due_at: datetime) -> None:
        """Try again at `due_at`, unless the contact's next message comes first.

        Does nothing when another process has taken over.
        """
        ...

    async def drop(self, task: ReplyTask) -> None:
        """End a task without an answer: a person has to take over.

        Does nothing when another process has taken over.
        """
        ...
