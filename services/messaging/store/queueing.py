"""Storing messages for sending, within the caller's transaction."""

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PolicyRefusedError,
    SwitchboardError,
)
from services.messaging.domain.message import (
    Author,
    Delivery,
    Direction,
    Media,
    Message,
    MessageStatus,
    TimeSource,
)
from services.messaging.ports.sending import NewMessage
from services.messaging.store.bulk import among, insert_many, one_of, update_many
from services.messaging.store.contact_models import ContactRow, ConversationRow, IdentityRow
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.public_ids import new_public_id
from services.messaging.store.rows import message_of, select_messages
from services.messaging.store.work_models import OutboxRow
from services.messaging.usecases.policy import RecipientFacts, SendPolicy

AnyRow = Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Queueing:
    """A message, and its conversation as `select_conversations` gave it, locked.

    Attributes:
        answers_id: The row of the message that it answers.
        answers_message_id: Our id of that message.
    """

    message: NewMessage
    conversation: AnyRow
    answers_id: int | None = None
    answers_message_id: str | None = None


@functools.cache
def select_conversations(*, lock: bool) -> Select[*tuple[Any, ...]]:
    """Asks for the conversations of identities, with what the rules need to know.

    Locked before a message gets its number, and held until the commit: so numbers become visible
    in their order, and a conversation's oldest unsettled message stays its oldest.
    """
    query = (
        select(
            IdentityRow.kind,
            IdentityRow.value,
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.own_address,
            ConversationRow.last_inbound_at,
            ConversationRow.paced_until,
            ConversationRow.assistant_paused_at,
            ContactRow.opted_out_at,
        )
        .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
        .join(IdentityRow, IdentityRow.contact_id == ContactRow.id)
        .order_by(ContactRow.id, ConversationRow.id)
    )
    return query.with_for_update(of=ConversationRow, key_share=True) if lock else query


def refusal(
    message: NewMessage, conversation: AnyRow | None, policy: SendPolicy, now: datetime
) -> PolicyRefusedError | None:
    """Why a message may not be stored; None when it may. Strangers have no conversation."""
    if conversation is None:
        facts = RecipientFacts(opted_out_at=None, last_inbound_at=None)
    else:
        facts = RecipientFacts(conversation.opted_out_at, conversation.last_inbound_at)
        if message.author is Author.ASSISTANT and conversation.assistant_paused_at is not None:
            return PolicyRefusedError("paused", "the assistant is paused in this conversation")
    return policy.refusal(
        facts, is_template=message.template is not None, provider=message.provider, now=now
    )


async def insert_queued(
    connection: AsyncConnection, wanted: Sequence[Queueing], *, policy: SendPolicy, now: datetime
) -> list[Message | SwitchboardError | None]:
    """Store messages and their places in the outbox.

    Returns for each, in order, the message; or why it was refused; or None, and nothing stored,
    when its `request_id` or `answers_id` is taken.
    """
    replied_to = await _replied_to(connection, wanted)
    ahead = await _ahead(connection, {one.conversation.id for one in wanted})
    errors: list[SwitchboardError | None] = []
    waiting = Counter(ahead)
    for one in wanted:
        error = _error(one, replied_to, waiting, policy, now)
        errors.append(error)
        waiting[one.conversation.id] += error is None
    accepted = [one for one, error in zip(wanted, errors, strict=True) if error is None]
    stored = iter(await _insert(connection, accepted, replied_to, ahead, policy, now))
    return [next(stored) if error is None else error for error in errors]


async def requested_before(
    connection: AsyncConnection, messages: Sequence[NewMessage]
) -> list[Message | IdempotencyConflictError | None]:
    """For each request the message that was stored first for it, if any.

    A `request_id` that stands for another request is an error.
    """
    ids = {one.request_id for one in messages if one.request_id is not None}
    if not ids:
        return [None] * len(messages)
    rows = await connection.execute(
        select_messages().where(one_of(connection, MessageRow.request_id, ids))
    )
    known = {row.request_id: row for row in rows}
    return [_known(known.get(one.request_id), one) for one in messages]


def _known(row: AnyRow | None, message: NewMessage) -> Message | IdempotencyConflictError | None:
    if row is None:
        return None
    if row.request_hash != message.request_hash:
        return IdempotencyConflictError(
            "request_id: it was used before with another request; use a new one"
        )
    return message_of(row)


def _error(
    one: Queueing,
    replied_to: Mapping[tuple[str, int], int],
    waiting: Mapping[int, int],
    policy: SendPolicy,
    now: datetime,
) -> SwitchboardError | None:
    refused = refusal(one.message, one.conversation, policy, now)
    if refused is not None:
        return refused
    overload = policy.overload(waiting.get(one.conversation.id, 0), now)
    if overload is not None:
        return overload
    reply_to = one.message.reply_to_message_id
    if reply_to is not None and (reply_to, one.conversation.id) not in replied_to:
        return InvalidInputError(
            "reply_to_message_id", "is no message of the conversation with this contact"
        )
    return None


async def _replied_to(
    connection: AsyncConnection, wanted: Iterable[Queueing]
) -> dict[tuple[str, int], int]:
    """The messages that are replied to, by id and conversation."""
    ids = {one.message.reply_to_message_id for one in wanted} - {None}
    if not ids:
        return {}
    rows = await connection.execute(
        select(MessageRow.id, MessageRow.public_id, MessageRow.conversation_id).where(
            one_of(connection, MessageRow.public_id, ids)
        )
    )
    return {(row.public_id, row.conversation_id): row.id for row in rows}


async def _ahead(connection: AsyncConnection, conversation_ids: Collection[int]) -> dict[int, int]:
    """How many unsettled messages each conversation has; the oldest stays until the commit.

    Whoever settles it releases the next one: this waits for them, or they for us.
    """
    ahead: dict[int, int] = {}
    left = set(conversation_ids)
    dialect = connection.dialect.name
    while left:
        rows = await connection.execute(_oldest(dialect), {"conversation_ids": list(left)})
        oldest = {message_id: (key, count) for key, message_id, count in rows}
        if not oldest:
            break
        held = await connection.scalars(_holding(dialect), {"message_ids": list(oldest)})
        ahead.update(oldest[message_id] for message_id in held)
        # The others were settled while we waited for them: look who is the oldest now.
        left = {key for key, _ in oldest.values()} - ahead.keys()
    return ahead


@functools.cache
def _oldest(dialect: str) -> Select[int, int, int]:
    return (
        select(OutboxRow.conversation_id, func.min(OutboxRow.message_id), func.count())
        .where(among(dialect, OutboxRow.conversation_id, "conversation_ids"))
        .group_by(OutboxRow.conversation_id)
    )


@functools.cache
def _holding(dialect: str) -> Select[int]:
    return (
        select(OutboxRow.message_id)
        .where(among(dialect, OutboxRow.message_id, "message_ids"))
        .order_by(OutboxRow.message_id)
        .with_for_update(read=True, key_share=True)
    )


async def _insert(
    connection: AsyncConnection,
    accepted: Sequence[Queueing],
    replied_to: Mapping[tuple[str, int], int],
    ahead: Mapping[int, int],
    policy: SendPolicy,
    now: datetime,
) -> list[Message | None]:
    keys = [new_public_id() for _ in accepted]
    inserted = await insert_many(
        connection,
        MessageRow,
        [_message(key, one, replied_to, now) for key, one in zip(keys, accepted, strict=True)],
        MessageRow.id,
        MessageRow.public_id,
    )
    by_key = dict(zip(keys, accepted, strict=True))
    changes: dict[int, dict[str, Any]] = {}
    places: list[dict[str, Any]] = []
    for row_id, key in sorted((row.id, row.public_id) for row in inserted):
        one = by_key[key]
        conversation_id = one.conversation.id
        before = changes.get(conversation_id)
        booked = before["paced_until"] if before else one.conversation.paced_until
        due_at, paced_until = policy.pace.book(booked, now)
        places.append(
            {
                "message_id": row_id,
                "conversation_id": conversation_id,
                "state": "waiting" if before or ahead.get(conversation_id) else "due",
                "attempts": 0,
                "due_at": due_at,
            }
        )
        changes[conversation_id] = {
            "contact_address": one.message.contact_address,
            "last_message_at": now,
            "paced_until": paced_until,
        }
    if not places:
        return [None] * len(keys)
    await update_many(connection, ConversationRow, changes)
    await insert_many(
        connection,
        MessageEventRow,
        [_event(row.id, row.public_id, by_key[row.public_id].message, now) for row in inserted],
    )
    await insert_many(connection, OutboxRow, places)
    stored = {row.public_id for row in inserted}
    return [_stored(key, one, now) if key in stored else None for key, one in by_key.items()]


def _stored(public_id: str, one: Queueing, now: datetime) -> Message:
    """The message as reading it would give it."""
    message = one.message
    return Message(
        id=public_id,
        conversation_id=one.conversation.public_id,
        direction=Direction.OUTBOUND,
        author=message.author,
        contact_address=message.contact_address,
        own_address=message.own_address,
        body=message.body,
        media=tuple(Media(file.url, file.content_type) for file in message.media),
        provider=message.provider,
        provider_message_id=None,
        answers_message_id=one.answers_message_id,
        delivery=Delivery(MessageStatus.QUEUED),
        created_at=now,
        template=message.template,
        reply_to_message_id=message.reply_to_message_id,
    )


def _message(
    public_id: str,
    one: Queueing,
    replied_to: Mapping[tuple[str, int], int],
    now: datetime,
) -> dict[str, Any]:
    message = one.message
    template = message.template
    return {
        "public_id": public_id,
        "conversation_id": one.conversation.id,
        "direction": Direction.OUTBOUND.value,
        "author": message.author.value,
        "contact_address": message.contact_address,
        "own_address": message.own_address,
        "body": message.body,
        "media": [{"url": file.url, "content_type": file.content_type} for file in message.media],
        "template": template and {"id": template.id, "variables": dict(template.variables)},
        "reply_to_id": message.reply_to_message_id
        and replied_to[message.reply_to_message_id, one.conversation.id],
        "provider": message.provider,
        "status": MessageStatus.QUEUED.value,
        "request_id": message.request_id,
        "request_hash": message.request_hash,
        "answers_id": one.answers_id,
        "created_at": now,
        "traceparent": message.traceparent or None,
    }


def _event(row_id: int, public_id: str, message: NewMessage, now: datetime) -> dict[str, Any]:
    return {
        "message_id": row_id,
        "event_key": f"queued:{public_id}",
        "kind": "queued",
        "status": MessageStatus.QUEUED.value,
        "provider": message.provider,
        "occurred_at": now,
        "source": TimeSource.RECEIVED.value,
        "payload": {},
        "journaled": False,
    }
