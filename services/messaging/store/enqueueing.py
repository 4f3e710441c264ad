"""Storing requests to send: each once, many of them in one transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.conversation import PausedBy
from services.messaging.domain.message import Author, Message
from services.messaging.ports.sending import NewMessage
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import ConversationRow, IdentityRow
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.opening import Party
from services.messaging.store.pausing import pause
from services.messaging.store.queueing import (
    AnyRow,
    Queueing,
    insert_queued,
    refusal,
    requested_before,
    select_conversations,
)
from services.messaging.usecases.policy import SendPolicy

Stored = tuple[Message, bool]
"""A message, and whether it is new."""

_Key = tuple[str, str, str]


class MergedMeanwhileError(UnavailableError):
    """The contact became another one between looking and locking: the next try finds that one."""

    def __init__(self) -> None:
        super().__init__("the conversation was just merged with another, try again")


class NothingStoredError(Exception):
    """Every request of a batch was refused: raised to roll back what was prepared for them."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        super().__init__("nothing was stored")
        self.errors = errors


async def enqueue_all(
    connection: AsyncConnection, messages: Sequence[NewMessage], policy: SendPolicy, now: datetime
) -> list[Stored | Exception]:
    """Store messages and their places in the outbox, within the caller's transaction.

    A message of a person silences the assistant; such a message must come alone, because a refusal
    has to be rolled back and because more is locked, in another order.

    Returns for each, in order, the message and whether it is new, or why it was refused.

    Raises:
        NothingStoredError: All were refused.
    """
    # First of all: a repeated request gets its answer whatever has changed since.
    results: list[Stored | Exception | None] = [
        known if known is None or isinstance(known, Exception) else (known, False)
        for known in await requested_before(connection, messages)
    ]
    new = [index for index, result in enumerate(results) if result is None]
    if new:
        fresh = await _store(connection, [messages[index] for index in new], policy, now)
        for index, result in zip(new, fresh, strict=True):
            results[index] = result
    settled = [result or UnavailableError("the message was not stored") for result in results]
    errors = [result for result in settled if isinstance(result, Exception)]
    if len(errors) == len(settled):
        raise NothingStoredError(errors)
    return settled


async def _store(
    connection: AsyncConnection, messages: Sequence[NewMessage], policy: SendPolicy, now: datetime
) -> list[Stored | Exception]:
    theirs = _conversations_of(connection, messages)
    known = await _conversations(connection, theirs, lock=False)
    results: list[Stored | Exception | None] = [
        None if _key(one) in known else _refuse_stranger(one, policy, now) for one in messages
    ]
    left = [index for index, error in enumerate(results) if error is None]
    # A person's message pauses the assistant, so its contact is held first, too. Otherwise a merge
    # may take the conversation away before the pause, which then silences nobody; and to change a
    # conversation twice, as this does, PostgreSQL asks for the contact, which a merge holds.
    resolved = [
        messages[index]
        for index in left
        if _key(messages[index]) not in known or messages[index].author is Author.PERSON
    ]
    if resolved:
        await resolve_conversations(
            connection,
            [Party((one.recipient,), one.contact_address, one.own_address) for one in resolved],
            now,
        )
        known = await _conversations(connection, theirs, lock=False)
    for index in left:
        if messages[index].author is Author.PERSON and _key(messages[index]) in known:
            await pause(connection, known[_key(messages[index])].id, PausedBy.PERSON, now)
    locked = await _conversations(connection, theirs, lock=True) if left else {}
    wanted = {
        index: Queueing(messages[index], locked[_key(messages[index])])
        for index in left
        if _key(messages[index]) in locked
    }
    stored = await insert_queued(connection, list(wanted.values()), policy=policy, now=now)
    taken = []
    for index, result in zip(wanted, stored, strict=True):
        if result is None:
            taken.append(index)
        else:
            results[index] = result if isinstance(result, Exception) else (result, True)
    # The same requests at the same moment were faster.
    before = await requested_before(connection, [messages[index] for index in taken])
    for index, earlier in zip(taken, before, strict=True):
        results[index] = (earlier, False) if isinstance(earlier, Message) else earlier
    return [result or MergedMeanwhileError() for result in results]


def _conversations_of(
    connection: AsyncConnection, messages: Sequence[NewMessage]
) -> ColumnElement[bool]:
    by_kind: dict[tuple[str, str], set[str]] = {}
    for one in messages:
        by_kind.setdefault((one.recipient.kind.value, one.own_address), set()).add(
            one.recipient.value
        )
    return or_(
        *(
            and_(
                IdentityRow.kind == kind,
                one_of(connection, IdentityRow.value, values),
                ConversationRow.own_address == own_address,
            )
            for (kind, own_address), values in sorted(by_kind.items())
        )
    )


async def _conversations(
    connection: AsyncConnection, theirs: ColumnElement[bool], *, lock: bool
) -> dict[_Key, AnyRow]:
    rows = await connection.execute(select_conversations(lock=lock).where(theirs))
    return {(row.kind, row.value, row.own_address): row for row in rows}


def _key(message: NewMessage) -> _Key:
    return message.recipient.kind.value, message.recipient.value, message.own_address


def _refuse_stranger(message: NewMessage, policy: SendPolicy, now: datetime) -> Exception | None:
    """Refuse before a contact is made up for a message that is not sent to them."""
    if message.reply_to_message_id is not None:
        return InvalidInputError(
            "reply_to_message_id", "is no message of the conversation with this contact"
        )
    return refusal(message, None, policy, now)
