"""What messaging itself did, as the journal keeps it, and what keeping and restoring it needs.

Webhooks are in the journal before they are acted upon. These go the other way: they are in the
database first and follow into the journal, so that a database can be rebuilt from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.messaging.domain.contact import Identity
from services.messaging.domain.conversation import PausedBy
from services.messaging.domain.message import Author, Media, MessageStatus, Template
from services.messaging.ports.sending import OutcomeKind


@dataclass(frozen=True, slots=True)
class ActConversation:
    """A conversation, and how to find or open it again where its id isn't known."""

    id: str
    contact_id: str
    identity: Identity
    contact_address: str
    own_address: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation was begun. `key` is the natural key, as of every act."""

    key: str
    at: datetime
    conversation: ActConversation


@dataclass(frozen=True, slots=True)
class Paused:
    """The assistant was silenced."""

    key: str
    at: datetime
    conversation: ActConversation
    by: PausedBy


@dataclass(frozen=True, slots=True)
class Resumed:
    """The assistant may answer again."""

    key: str
    at: datetime
    conversation: ActConversation


@dataclass(frozen=True, slots=True)
class Read:
    """The contact's messages were read, up to this one."""

    key: str
    at: datetime
    conversation: ActConversation
    message_id: str


@dataclass(frozen=True, slots=True)
class Queued:
    """A message was stored for sending."""

    key: str
    at: datetime
    conversation: ActConversation
    message_id: str
    author: Author
    contact_address: str
    body: str
    provider: str
    media: tuple[Media, ...] = ()
    template: Template | None = None
    reply_to_message_id: str | None = None
    answers_message_id: str | None = None
    request_id: str | None = None
    request_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """An attempt to send a message began."""

    key: str
    at: datetime
    message_id: str
    attempt: int
    provider: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, or what a later look at the provider's list showed.

    Attributes:
        status: Where the message stood then, when that is known.
        void: A rejection that came too late to count: the message was settled, or it was another's
            turn to say what became of it.
    """

    key: str
    at: datetime
    message_id: str
    attempt: int
    provider: str
    outcome: OutcomeKind
    provider_message_id: str | None = None
    status: MessageStatus | None = None
    error_code: str | None = None
    error_message: str | None = None
    void: bool = False


Act = Opened | Paused | Resumed | Read | Queued | Attempted | Ended


class ActLog(Protocol):
    """What was committed and may not be in the journal yet."""

    async def unjournaled(self, *, limit: int, lease_seconds: float) -> Sequence[Act]:
        """The oldest acts that aren't known to be in the journal, of a message in their order.

        Empty while another process has the lease to bring them there.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def mark_journaled(self, acts: Sequence[Act]) -> None:
        """Note that acts are in the journal.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a batch of acts changed.

    Attributes:
        new: Acts that were not in the database.
        orphans: Acts about messages that aren't there; they have changed nothing.
    """

    new: int = 0
    orphans: Sequence[Act] = field(default=())


class ActRestorer(Protocol):
    """Puts acts of the journal back into a database."""

    async def restore(self, acts: Sequence[Act]) -> RestoreResult:
        """Store acts that aren't there yet, and what follows from them.

        The order matters only so far that a message finds those it refers to.

        A message that is restored is never due: until its end is restored, too, its outcome is
        unknown, and nobody looks it up before `release` or for an hour.

        Raises:
            UnavailableError: The database can't be reached.
            ValueError: A value can't be stored; nothing was.
        """
        ...

    async def doubt(self) -> None:
        """Take no unsettled send of the database for unsent: it is a backup, and time has passed.

        Raises:
            UnavailableError: The database can't be reached.
        """
        ...

    async def release(self) -> int:
        """Have the outcome of restored messages looked up whose end wasn't restored; how many."""
        ...
